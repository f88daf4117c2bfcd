#!/usr/bin/env bash
# Removes what infra/bootstrap.sh and deploys made, with all data: bucket, databases, images, metrics. It cannot be undone.
# The identity pool stays: Google Cloud keeps a deleted one's name for 30 days, and without esteira-deploy it opens nothing.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=infra/steps.sh
source "$ROOT/infra/steps.sh"

PROJECT='' REGION=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --dry-run) DRY_RUN=yes && shift && continue ;;
    -h | --help) printf 'Usage: infra/destroy.sh --project ID --region REGION [--dry-run]\n' && exit 0 ;;
  esac
  [[ $# -ge 2 ]] || fail "$1 needs a value, or is unknown; see --help"
  case $1 in
    --project) PROJECT=$2 ;;
    --region) REGION=$2 ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  shift 2
done
[[ $PROJECT =~ ^[a-z][a-z0-9-]{4,28}[a-z0-9]$ ]] || fail "--project is '$PROJECT', which is no project id"
[[ $REGION =~ ^[a-z]+-[a-z]+[0-9]+$ ]] || fail "--region is '$REGION', not of the form europe-west1"
choose_python

HERE=(--project="$PROJECT")
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

confirm() {
  local answer
  printf 'All data of Esteira in the project %s will be gone. Type the id of the project to go on: ' "$PROJECT" >&2
  read -r answer || answer=
  [[ $answer == "$PROJECT" ]] || fail "nothing was removed"
}

# remove WHAT… -- ARGUMENTS…: runs WHAT delete ARGUMENTS if WHAT describe ARGUMENTS finds it.
remove() {
  local -a what=()
  while [[ $1 != -- ]]; do what+=("$1") && shift; done
  shift
  if [[ $DRY_RUN == yes ]] || there "${what[@]}" describe "$@" "${HERE[@]}"; then
    run "${what[@]}" delete "$@" "${HERE[@]}" --quiet
  fi
}

[[ $DRY_RUN == yes ]] || confirm

say "What calls and what is called"
for name in etl trainer monitor; do
  remove gcloud scheduler jobs -- "esteira-reconcile-$name" --location="$REGION"
done
"$PYTHON" -m esteira.topology_commands remove --project "$PROJECT" >"$WORK/topology"
run_steps <"$WORK/topology"
for name in etl trainer predictor monitor mlflow; do
  remove gcloud run services -- "esteira-$name" --region="$REGION"
done
for name in migrations training; do
  remove gcloud run jobs -- "esteira-$name" --region="$REGION"
done

say "Monitoring"
remove gcloud monitoring dashboards -- esteira
for file in "$ROOT"/infra/monitoring/alerts/*.json; do
  name=$(sed -n 's/^  "displayName": "\(.*\)",$/\1/p' "$file")
  found=$(ask "projects/$PROJECT/alertPolicies/0" gcloud alpha monitoring policies list \
    --filter="displayName=\"$name\"" --format='value(name)' "${HERE[@]}")
  [[ -z $found ]] || run gcloud alpha monitoring policies delete "$found" "${HERE[@]}" --quiet
done
for found in $(ask "projects/$PROJECT/notificationChannels/0" gcloud beta monitoring channels list \
  --filter='displayName="Esteira alerts"' --format='value(name)' "${HERE[@]}"); do
  run gcloud beta monitoring channels delete "$found" "${HERE[@]}" --quiet
done
for file in "$ROOT"/infra/monitoring/metrics/*.json; do
  remove gcloud logging metrics -- "$(basename "$file" .json)"
done

say "Data"
if [[ $DRY_RUN == yes ]] || there gcloud sql instances describe esteira "${HERE[@]}"; then
  run gcloud sql instances patch esteira --no-deletion-protection "${HERE[@]}" --quiet
  run gcloud sql instances delete esteira "${HERE[@]}" --quiet
fi
if [[ $DRY_RUN == yes ]] || there gcloud storage buckets describe "gs://$PROJECT-esteira" "${HERE[@]}"; then
  run gcloud storage rm "gs://$PROJECT-esteira" "${HERE[@]}" --recursive
fi
remove gcloud artifacts repositories -- esteira --location="$REGION"
remove gcloud secrets -- esteira-github-token

say "Accounts"
for name in etl trainer predictor monitor mlflow push deploy validate; do
  remove gcloud iam service-accounts -- "esteira-$name@$PROJECT.iam.gserviceaccount.com"
done

say "Network"
for name in run.app. '*.run.app.'; do
  remove gcloud dns record-sets -- "$name" --type=A --zone=esteira-run-app
done
remove gcloud dns managed-zones -- esteira-run-app
remove gcloud compute networks subnets -- esteira --region="$REGION"
remove gcloud compute networks -- esteira
