"""`esteira deploy`: carries an image to Cloud Run, and back if it does not serve.

command → rollout (what follows what) → cloud_run (gcloud) and smoke (what a new revision must answer).
"""
