#!/usr/bin/env bash
# Makes everything that Esteira needs in a Google Cloud project, once; run again, it brings settings up to date.
# docs/google-cloud.md says what is made, and which rights each service account has and why.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=infra/steps.sh
source "$ROOT/infra/steps.sh"

usage() {
  cat <<'TEXT'
Usage: infra/bootstrap.sh --project ID --region REGION --repository-id N --repository-owner-id N
                          [--branch main] [--email ADDRESS] [--tier TIER] [--project-number N] [--after-deploy] [--dry-run]

  --repository-id, --repository-owner-id   of the GitHub repository that may deploy: the numbers `id` and `owner.id` in
                                           https://api.github.com/repos/OWNER/NAME
  --branch          the branch whose workflows may deploy
  --email           who is told of alerts; without it, alerts are only listed
  --tier            machine type of the Cloud SQL instance
  --project-number  asked for if not given
  --after-deploy    only let callers in to the services and jobs that a first deploy has made
  --dry-run         print the commands for an empty project, or with --after-deploy for a deployed one; needs no login
TEXT
}

PROJECT='' REGION='' REPOSITORY_ID='' OWNER_ID='' BRANCH=main EMAIL='' TIER=db-custom-1-3840 PROJECT_NUMBER='' AFTER_DEPLOY=no
while [[ $# -gt 0 ]]; do
  case $1 in
    --dry-run) DRY_RUN=yes && shift && continue ;;
    --after-deploy) AFTER_DEPLOY=yes && shift && continue ;;
    -h | --help) usage && exit 0 ;;
  esac
  [[ $# -ge 2 ]] || fail "$1 needs a value, or is unknown; see --help"
  case $1 in
    --project) PROJECT=$2 ;;
    --region) REGION=$2 ;;
    --repository-id) REPOSITORY_ID=$2 ;;
    --repository-owner-id) OWNER_ID=$2 ;;
    --branch) BRANCH=$2 ;;
    --email) EMAIL=$2 ;;
    --tier) TIER=$2 ;;
    --project-number) PROJECT_NUMBER=$2 ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  shift 2
done
[[ $PROJECT =~ ^[a-z][a-z0-9-]{4,28}[a-z0-9]$ ]] || fail "--project is '$PROJECT', which is no project id"
[[ $REGION =~ ^[a-z]+-[a-z]+[0-9]+$ ]] || fail "--region is '$REGION', not of the form europe-west1"
[[ $REPOSITORY_ID =~ ^[0-9]+$ ]] || fail "--repository-id is '$REPOSITORY_ID', not a number: a name can change hands"
[[ $OWNER_ID =~ ^[0-9]+$ ]] || fail "--repository-owner-id is '$OWNER_ID', not a number: a name can change hands"
[[ $BRANCH =~ ^[A-Za-z0-9._/-]+$ ]] || fail "--branch is '$BRANCH', which is no branch's name"
choose_python

BUCKET=gs://$PROJECT-esteira
HERE=(--project="$PROJECT")
SERVICES=(etl trainer predictor monitor)
RUNTIMES=("${SERVICES[@]}" mlflow)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

account() { printf 'esteira-%s@%s.iam.gserviceaccount.com' "$1" "$PROJECT"; }
address() { printf 'https://esteira-%s-%s.%s.run.app' "$1" "$PROJECT_NUMBER" "$REGION"; }

# grant WHAT… -- ACCOUNT ROLE, where WHAT is the command up to its resource; grants are idempotent by themselves.
grant() {
  local -a what=()
  while [[ $1 != -- ]]; do what+=("$1") && shift; done
  persist run "${what[@]}" --member="serviceAccount:$2" --role="$3" "${HERE[@]}" --format=none
}

grant_project() {
  persist run gcloud projects add-iam-policy-binding "$PROJECT" --member="serviceAccount:$1" --role="$2" --condition=None --format=none
}

# render FILE: the path of its copy with placeholders filled in, or in a dry run, which leaves no copies, its own path.
render() {
  if [[ $DRY_RUN == yes ]]; then
    printf '%s' "${1#"$ROOT/"}"
    return
  fi
  # shellcheck disable=SC2016
  sed -e 's/${PROJECT}/'"$PROJECT"'/g' -e 's/${PROJECT_NUMBER}/'"$PROJECT_NUMBER"'/g' "$1" >"$WORK/${1##*/}"
  printf '%s' "$WORK/${1##*/}"
}

enable_apis() {
  say "APIs, and Google's own accounts behind them"
  run gcloud services enable run.googleapis.com sqladmin.googleapis.com artifactregistry.googleapis.com \
    pubsub.googleapis.com storage.googleapis.com cloudscheduler.googleapis.com secretmanager.googleapis.com \
    iam.googleapis.com iamcredentials.googleapis.com sts.googleapis.com cloudresourcemanager.googleapis.com \
    compute.googleapis.com dns.googleapis.com monitoring.googleapis.com logging.googleapis.com "${HERE[@]}"
  run gcloud beta services identity create --service=pubsub.googleapis.com "${HERE[@]}"
  run gcloud beta services identity create --service=cloudscheduler.googleapis.com "${HERE[@]}"
  run gcloud storage service-agent "${HERE[@]}"
}

make_accounts() {
  say "Service accounts, without any right so far"
  local name
  for name in "${RUNTIMES[@]}" push deploy validate; do
    there gcloud iam service-accounts describe "$(account "$name")" "${HERE[@]}" ||
      run gcloud iam service-accounts create "esteira-$name" --display-name="Esteira $name" "${HERE[@]}"
  done
}

make_registry() {
  say "Artifact Registry"
  there gcloud artifacts repositories describe esteira --location="$REGION" "${HERE[@]}" ||
    run gcloud artifacts repositories create esteira --repository-format=docker --location="$REGION" "${HERE[@]}"
  grant gcloud artifacts repositories add-iam-policy-binding esteira --location="$REGION" \
    -- "$(account deploy)" roles/artifactregistry.writer
}

make_network() {
  say "Network: the way in to MLflow; *.run.app resolves to private.googleapis.com within it"
  local name
  there gcloud compute networks describe esteira "${HERE[@]}" ||
    run gcloud compute networks create esteira --subnet-mode=custom "${HERE[@]}"
  there gcloud compute networks subnets describe esteira --region="$REGION" "${HERE[@]}" ||
    run gcloud compute networks subnets create esteira --network=esteira --range=10.64.0.0/24 --region="$REGION" \
      --enable-private-ip-google-access "${HERE[@]}"
  there gcloud dns managed-zones describe esteira-run-app "${HERE[@]}" ||
    run gcloud dns managed-zones create esteira-run-app --dns-name=run.app. --visibility=private --networks=esteira \
      --description='Cloud Run by way of private.googleapis.com' "${HERE[@]}"
  for name in run.app. '*.run.app.'; do
    there gcloud dns record-sets describe "$name" --type=A --zone=esteira-run-app "${HERE[@]}" ||
      run gcloud dns record-sets create "$name" --type=A --zone=esteira-run-app --ttl=300 \
        --rrdatas=199.36.153.8,199.36.153.9,199.36.153.10,199.36.153.11 "${HERE[@]}"
  done
}

make_topics() {
  say "Topics, subscriptions and dead letters, as shared/src/esteira/topology.py declares them"
  grant gcloud iam service-accounts add-iam-policy-binding "$(account push)" \
    -- "service-$PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com" roles/iam.serviceAccountTokenCreator
  "$PYTHON" -m esteira.topology_commands apply --project "$PROJECT" --project-number "$PROJECT_NUMBER" \
    --region "$REGION" >"$WORK/topology"
  run_steps <"$WORK/topology"
}

make_bucket() {
  say "Bucket, which tells of uploads below raw/"
  local name told
  there gcloud storage buckets describe "$BUCKET" "${HERE[@]}" ||
    run gcloud storage buckets create "$BUCKET" --location="$REGION" --uniform-bucket-level-access \
      --public-access-prevention "${HERE[@]}"
  run gcloud storage buckets update "$BUCKET" --uniform-bucket-level-access --public-access-prevention "${HERE[@]}"
  told=$(ask '' gcloud storage buckets notifications list "$BUCKET" --format=json "${HERE[@]}")
  [[ $told == *topics/raw-data-uploaded* ]] ||
    persist run gcloud storage buckets notifications create "$BUCKET" --topic="projects/$PROJECT/topics/raw-data-uploaded" \
      --event-types=OBJECT_FINALIZE --object-prefix=raw/ --payload-format=json --skip-topic-setup "${HERE[@]}"
  for name in "${RUNTIMES[@]}" deploy validate; do
    grant_bucket "$(account "$name")" roles/storage.objectViewer
  done
  grant_bucket "$(account etl)" roles/storage.objectUser datasets quarantine
  grant_bucket "$(account trainer)" roles/storage.objectUser releases serving mlflow
  grant_bucket "$(account monitor)" roles/storage.objectUser serving samples
}

# grant_bucket ACCOUNT ROLE [FOLDER…]: on the whole bucket, or on what lies below the folders.
grant_bucket() {
  local account=$1 role=$2 condition=None folder expression=
  shift 2
  if [[ $# -gt 0 ]]; then
    for folder in "$@"; do
      expression+="${expression:+ || }resource.name.startsWith(\"projects/_/buckets/${BUCKET#gs://}/objects/$folder/\")"
    done
    condition="expression=$expression,title=below $*"
  fi
  grant gcloud storage buckets add-iam-policy-binding "$BUCKET" --condition="$condition" -- "$account" "$role"
}

make_database() {
  say "Cloud SQL: one instance, two databases, and IAM users instead of passwords"
  there gcloud sql instances describe esteira "${HERE[@]}" ||
    run gcloud sql instances create esteira --database-version=POSTGRES_17 --edition=enterprise --tier="$TIER" \
      --region="$REGION" --database-flags=cloudsql.iam_authentication=on --storage-auto-increase --backup \
      --deletion-protection "${HERE[@]}"
  local name reader users
  for name in esteira mlflow; do
    there gcloud sql databases describe "$name" --instance=esteira "${HERE[@]}" ||
      run gcloud sql databases create "$name" --instance=esteira "${HERE[@]}"
  done
  users=$(ask '' gcloud sql users list --instance=esteira --format='value(name)' "${HERE[@]}")
  for name in etl trainer monitor mlflow; do
    grant_project "$(account "$name")" roles/cloudsql.client
    grant_project "$(account "$name")" roles/cloudsql.instanceUser
    grep -qxF "esteira-$name@$PROJECT.iam" <<<"$users" ||
      run gcloud sql users create "esteira-$name@$PROJECT.iam" --instance=esteira --type=cloud_iam_service_account "${HERE[@]}"
  done
  say "Rights within the databases; they are read from the bucket"
  reader=$(ask instance@example.iam.gserviceaccount.com gcloud sql instances describe esteira \
    --format='value(serviceAccountEmailAddress)' "${HERE[@]}")
  grant_bucket "$reader" roles/storage.objectViewer bootstrap
  for name in esteira mlflow; do
    run gcloud storage cp "$(render "$ROOT/infra/cloud-sql/$name.sql")" "$BUCKET/bootstrap/$name.sql" "${HERE[@]}"
    persist run gcloud sql import sql esteira "$BUCKET/bootstrap/$name.sql" --database="$name" --user=postgres "${HERE[@]}" --quiet
  done
}

make_schedule() {
  say "Scheduler: every minute each service takes up what was left undone"
  # An agent that was made on request has no rights of its own accord, and makes the tokens of what Scheduler calls.
  grant_project "service-$PROJECT_NUMBER@gcp-sa-cloudscheduler.iam.gserviceaccount.com" roles/cloudscheduler.serviceAgent
  local name job
  local -A seconds=([etl]=900 [trainer]=300 [monitor]=600)
  for name in etl trainer monitor; do
    job=(http "esteira-reconcile-$name" --location="$REGION" --schedule='* * * * *' --http-method=POST
      --uri="$(address "$name")/tasks/reconcile" --oidc-service-account-email="$(account push)"
      --oidc-token-audience="$(address "$name")" --attempt-deadline="${seconds[$name]}s" "${HERE[@]}")
    if there gcloud scheduler jobs describe "esteira-reconcile-$name" --location="$REGION" "${HERE[@]}"; then
      run gcloud scheduler jobs update "${job[@]}"
    else
      run gcloud scheduler jobs create "${job[@]}"
    fi
  done
}

make_secret() {
  say "The trainer's GitHub token, which nobody but a person can put in"
  there gcloud secrets describe esteira-github-token "${HERE[@]}" ||
    run gcloud secrets create esteira-github-token --replication-policy=automatic "${HERE[@]}"
  # The trainer's template names the newest version, without which Cloud Run refuses a deploy; GitHub refuses this one.
  there gcloud secrets versions describe latest --secret=esteira-github-token "${HERE[@]}" ||
    printf 'no-token' | run gcloud secrets versions add esteira-github-token --data-file=- "${HERE[@]}"
  grant gcloud secrets add-iam-policy-binding esteira-github-token \
    -- "$(account trainer)" roles/secretmanager.secretAccessor
}

make_federation() {
  say "Workload Identity Federation: one branch's workflows are esteira-deploy, all of the repository's esteira-validate"
  local pool=(--workload-identity-pool=esteira --location=global) provider name
  there gcloud iam workload-identity-pools describe esteira --location=global "${HERE[@]}" ||
    run gcloud iam workload-identity-pools create esteira --location=global --display-name=Esteira "${HERE[@]}"
  provider=(github "${pool[@]}" --issuer-uri=https://token.actions.githubusercontent.com
    --attribute-mapping='google.subject=assertion.sub,attribute.repository_id=assertion.repository_id,attribute.branch=assertion.repository_id+":"+assertion.ref'
    --attribute-condition="assertion.repository_id == '$REPOSITORY_ID' && assertion.repository_owner_id == '$OWNER_ID'"
    "${HERE[@]}")
  if there gcloud iam workload-identity-pools providers describe github "${pool[@]}" "${HERE[@]}"; then
    run gcloud iam workload-identity-pools providers update-oidc "${provider[@]}"
  else
    run gcloud iam workload-identity-pools providers create-oidc "${provider[@]}"
  fi
  local members=principalSet://iam.googleapis.com/projects/$PROJECT_NUMBER/locations/global/workloadIdentityPools/esteira
  persist run gcloud iam service-accounts add-iam-policy-binding "$(account deploy)" --role=roles/iam.workloadIdentityUser \
    --member="$members/attribute.branch/$REPOSITORY_ID:refs/heads/$BRANCH" "${HERE[@]}" --format=none
  persist run gcloud iam service-accounts add-iam-policy-binding "$(account validate)" --role=roles/iam.workloadIdentityUser \
    --member="$members/attribute.repository_id/$REPOSITORY_ID" "${HERE[@]}" --format=none
  # ID tokens for smoke tests and for the trainer's operator routes.
  grant gcloud iam service-accounts add-iam-policy-binding "$(account deploy)" \
    -- "$(account deploy)" roles/iam.serviceAccountOpenIdTokenCreator
  grant_project "$(account deploy)" roles/run.developer
  for name in "${RUNTIMES[@]}"; do
    grant gcloud iam service-accounts add-iam-policy-binding "$(account "$name")" \
      -- "$(account deploy)" roles/iam.serviceAccountUser
  done
}

make_monitoring() {
  say "Log-based metrics, alerts and the dashboard of infra/monitoring"
  local file name found etag channel=
  for file in "$ROOT"/infra/monitoring/metrics/*.json; do
    name=$(basename "$file" .json)
    if there gcloud logging metrics describe "$name" "${HERE[@]}"; then
      run gcloud logging metrics update "$name" --config-from-file="$file" "${HERE[@]}"
    else
      run gcloud logging metrics create "$name" --config-from-file="$file" "${HERE[@]}"
    fi
  done
  if [[ -n $EMAIL ]]; then
    channel=$(find_channel)
    [[ -n $channel ]] || run gcloud beta monitoring channels create --display-name='Esteira alerts' --type=email \
      --channel-labels="email_address=$EMAIL" "${HERE[@]}"
    channel=$(find_channel)
    channel=${channel:-projects/$PROJECT/notificationChannels/0}
  fi
  for file in "$ROOT"/infra/monitoring/alerts/*.json; do
    name=$(sed -n 's/^  "displayName": "\(.*\)",$/\1/p' "$file")
    found=$(ask '' gcloud alpha monitoring policies list --filter="displayName=\"$name\"" --format='value(name)' "${HERE[@]}")
    if [[ -n $found ]]; then
      update_policy "$found" "$file" "$channel"
    else
      persist run gcloud alpha monitoring policies create --policy-from-file="$file" \
        ${channel:+--notification-channels="$channel"} "${HERE[@]}"
    fi
  done
  file=$(render "$ROOT/infra/monitoring/dashboard.json")
  if there gcloud monitoring dashboards describe esteira "${HERE[@]}"; then
    etag=$(ask '' gcloud monitoring dashboards describe esteira --format='value(etag)' "${HERE[@]}")
    sed "1s/{/{\"etag\": \"$etag\",/" "$file" >"$WORK/known.json"
    run gcloud monitoring dashboards update esteira --config-from-file="$WORK/known.json" "${HERE[@]}"
  else
    run gcloud monitoring dashboards create --config-from-file="$file" "${HERE[@]}"
  fi
}

find_channel() {
  ask '' gcloud beta monitoring channels list --limit=1 --format='value(name)' "${HERE[@]}" \
    --filter="displayName=\"Esteira alerts\" AND labels.email_address=\"$EMAIL\""
}

# update_policy NAME FILE CHANNEL: a file takes the place of the whole policy, so that what people set is handed on:
# whether it is enabled, and the channels, to which ours is added.
update_policy() {
  local channels enabled
  channels=$(gcloud alpha monitoring policies describe "$1" --format='value(notificationChannels.list())' "${HERE[@]}")
  [[ -z $3 || ,$channels, == *",$3,"* ]] || channels=${channels:+$channels,}$3
  enabled=$(gcloud alpha monitoring policies describe "$1" --format='value(enabled)' "${HERE[@]}")
  if [[ $enabled == False ]]; then enabled=--no-enabled; else enabled=--enabled; fi
  run gcloud alpha monitoring policies update "$1" --policy-from-file="$2" "$enabled" \
    ${channels:+--set-notification-channels="$channels"} "${HERE[@]}"
}

# A right on a service or a job needs the service or job: until its first deploy, pushes are refused and kept by Pub/Sub.
grant_deployed() {
  say "Who may call which service and start which job"
  local name missing=()
  for name in "${SERVICES[@]}"; do
    if [[ $AFTER_DEPLOY$DRY_RUN == yesyes ]] || there gcloud run services describe "esteira-$name" --region="$REGION" "${HERE[@]}"; then
      grant gcloud run services add-iam-policy-binding "esteira-$name" --region="$REGION" -- "$(account push)" roles/run.invoker
      grant gcloud run services add-iam-policy-binding "esteira-$name" --region="$REGION" -- "$(account deploy)" roles/run.invoker
    else
      missing+=("esteira-$name")
    fi
  done
  if [[ $AFTER_DEPLOY$DRY_RUN == yesyes ]] || there gcloud run services describe esteira-mlflow --region="$REGION" "${HERE[@]}"; then
    for name in trainer monitor; do
      grant gcloud run services add-iam-policy-binding esteira-mlflow --region="$REGION" -- "$(account "$name")" roles/run.invoker
    done
  else
    missing+=(esteira-mlflow)
  fi
  if [[ $AFTER_DEPLOY$DRY_RUN == yesyes ]] || there gcloud run jobs describe esteira-training --region="$REGION" "${HERE[@]}"; then
    grant gcloud run jobs add-iam-policy-binding esteira-training --region="$REGION" \
      -- "$(account trainer)" roles/run.jobsExecutorWithOverrides
  else
    missing+=(esteira-training)
  fi
  if [[ ${#missing[@]} -gt 0 ]]; then
    printf '\nNot deployed yet: %s. Deploy, then run this again with --after-deploy: until then nobody may call them.\n' \
      "${missing[*]}" >&2
  fi
}

if [[ -z $PROJECT_NUMBER ]]; then
  PROJECT_NUMBER=$(ask 123456789012 gcloud projects describe "$PROJECT" --format='value(projectNumber)')
fi
[[ $PROJECT_NUMBER =~ ^[0-9]+$ ]] || fail "project $PROJECT has the number '$PROJECT_NUMBER': log in with gcloud auth login"
if [[ $AFTER_DEPLOY == yes ]]; then
  grant_deployed
  exit 0
fi
enable_apis
make_accounts
make_registry
make_network
make_topics
make_bucket
make_database
make_schedule
make_secret
make_federation
grant_deployed
make_monitoring
say "Variables for GitHub Actions"
cat <<TEXT
GCP_PROJECT=$PROJECT
GCP_PROJECT_NUMBER=$PROJECT_NUMBER
GCP_REGION=$REGION
GCP_WORKLOAD_IDENTITY_PROVIDER=projects/$PROJECT_NUMBER/locations/global/workloadIdentityPools/esteira/providers/github
GCP_DEPLOY_SERVICE_ACCOUNT=$(account deploy)
GCP_VALIDATE_SERVICE_ACCOUNT=$(account validate)
TEXT
