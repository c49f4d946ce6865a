#!/usr/bin/env bash
# Run molecule scenarios one after the other, each on a VM of its own, and print what each took.
# usage: molecule/run.sh SCENARIO...
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

# Molecule reads its own configuration; the project's would bring a callback that it cannot count changes in.
unset ANSIBLE_CONFIG

# What a converged VM is made of. `default` saves its VM under this name, and `stack` starts from it.
ONEBOX_SNAPSHOT=$(git ls-files -s roles templates playbooks plugins files inventory molecule/default | sha256sum | cut -c 1-12)
if ! git diff --quiet HEAD -- roles templates playbooks plugins files inventory molecule/default; then
    ONEBOX_SNAPSHOT=$(git diff HEAD -- roles templates playbooks plugins files inventory molecule/default | sha256sum | cut -c 1-12)
fi
export ONEBOX_SNAPSHOT

mkdir -p .cache
for scenario in "$@"; do
    start=$SECONDS
    log=.cache/molecule-$scenario.log
    if ! molecule test --scenario-name "$scenario" 2>&1 | tee "$log"; then
        echo "scenario $scenario FAILED after $((SECONDS - start)) s"
        exit 1
    fi
    # Molecule passes over a step whose playbook it does not find, and over a play that matches no host.
    if grep -aqE 'Missing playbook|no hosts matched' "$log"; then
        echo "scenario $scenario FAILED: a step did not run, see $log"
        exit 1
    fi
    echo "scenario $scenario passed in $((SECONDS - start)) s"
done
