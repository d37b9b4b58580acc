#!/bin/bash
# Runs the README's command on every host of a Cloud TPU slice, with only gcloud. The commands:
#   launch/tpu_pod.sh create       request the slice
#   launch/tpu_pod.sh status       ACTIVE when it is ready; SUSPENDED after a preemption: delete and create it again
#   launch/tpu_pod.sh install      copy this folder to every host and install it; repeat after a change of the code
#   launch/tpu_pod.sh run [flags]  start the run on every host, or resume it after an interruption
#   launch/tpu_pod.sh logs [host]  follow the log of a host, by default of the first, 0
#   launch/tpu_pod.sh stop         stop the run after it has saved
#   launch/tpu_pod.sh delete       release the slice
# docs/launch.md says what to set, how to follow a run and how it resumes after an interruption.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $# == 0 ]]; then
  sed -n '2,/^# docs/s/^# \{0,1\}//p' launch/tpu_pod.sh
  exit 2
fi
PROJECT=${PROJECT:?set PROJECT to the Google Cloud project}
ZONE=${ZONE:-us-east5-a}
NAME=${NAME:-llama2-jax}
ACCELERATOR_TYPE=${ACCELERATOR_TYPE:-v5p-32}        # 16 chips on 4 hosts: v5p counts two cores a chip
RUNTIME_VERSION=${RUNTIME_VERSION:-v2-alpha-tpuv5}  # of v5p; of v5litepod v2-alpha-tpuv5-lite, of v6e v2-alpha-tpuv6e
PROVISIONING=${PROVISIONING---spot}                 # or --reserved, --guaranteed; empty: on demand
CONFIG=${CONFIG:-experiments/rlhf_v5.py:7b}
WORKDIR=${WORKDIR:-}                                # gs://my-bucket/runs/rlhf_v5-7b: a folder that all hosts share
where=(--project="$PROJECT" --zone="$ZONE")

on_every_host() { # reads the commands from its input
  gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker=all --command="$(cat)"
}

# Checks on a host whether the run that was last started there is still alive.
# shellcheck disable=SC2016  # the host fills it in
alive='alive() { [[ -e llama2_jax.pid ]] && ps -ww -p "$(cat llama2_jax.pid)" -o args= | grep -q llama2_jax.main; }'

action=$1
shift
case $action in
  create)
    # shellcheck disable=SC2086  # an empty PROVISIONING is no argument
    gcloud compute tpus queued-resources create "$NAME" "${where[@]}" --node-id="$NAME" \
      --accelerator-type="$ACCELERATOR_TYPE" --runtime-version="$RUNTIME_VERSION" $PROVISIONING
    ;;
  status)
    gcloud compute tpus queued-resources describe "$NAME" "${where[@]}" --format='value(state.state)'
    ;;
  install)
    archive=$(mktemp -d)/llama2_jax.tar.gz
    git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -czf "$archive"
    gcloud compute tpus tpu-vm scp "$archive" "$NAME:llama2_jax.tar.gz" "${where[@]}" --worker=all
    # The hosts' own Python is too old; uv installs a newer one.
    on_every_host <<EOF
set -euo pipefail
$alive
if alive; then echo "error: a run is alive here: stop it first" >&2; exit 1; fi
rm -rf llama2_jax && mkdir llama2_jax && tar -xzf llama2_jax.tar.gz -C llama2_jax
[[ -x .local/bin/uv ]] || curl -LsSf https://astral.sh/uv/install.sh | sh
[[ -x llama2_jax.venv/bin/python ]] || .local/bin/uv venv --seed --python=3.12 llama2_jax.venv
cd llama2_jax && ../llama2_jax.venv/bin/python -m pip install --quiet -r requirements.txt -e '.[tpu,gcs]'
EOF
    ;;
  run)
    if [[ $WORKDIR != gs://* && $WORKDIR != /* ]]; then
      echo "error: WORKDIR='$WORKDIR': set it to gs://... or to the path of a file system that all hosts share" >&2
      exit 1
    fi
    program=$(printf '%q ' ../llama2_jax.venv/bin/python -m llama2_jax.main --distributed \
      --config="$CONFIG" --workdir="$WORKDIR" "$@")
    on_every_host <<EOF
$alive
if alive; then echo "error: a run is alive here: stop it first" >&2; exit 1; fi
cd llama2_jax
nohup $program >> ../llama2_jax.log 2>&1 < /dev/null &
echo \$! > ../llama2_jax.pid
EOF
    ;;
  logs)
    gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker="${1:-0}" --command='tail -n 100 -F llama2_jax.log'
    ;;
  stop)
    on_every_host <<EOF
$alive
if alive; then kill -TERM "\$(cat llama2_jax.pid)"; fi
while alive; do sleep 1; done
tail -n 3 llama2_jax.log
EOF
    ;;
  delete)
    gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force
    ;;
  *)
    echo "error: $action is none of create, status, install, run, logs, stop, delete" >&2
    exit 2
    ;;
esac
