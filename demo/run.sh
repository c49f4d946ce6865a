#!/usr/bin/env bash
# `make demo`: prepare this machine, start a VM on it, provision the VM over SSH, ingest the sample corpus and ask.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_CONFIG="$PWD/ansible.cfg" ANSIBLE_FORCE_COLOR=${ANSIBLE_FORCE_COLOR:-$([ -t 1 ] && echo 1 || echo 0)}

readonly URL=http://127.0.0.1:8080
readonly STATE=.cache/vm/onebox-demo
readonly INVENTORY=inventory/demo

stage() { printf '\n== %s (%d:%02d since the start)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

stage "1/4 This machine: packages, Ansible, Docker Engine"
./bootstrap.sh

stage "2/4 A Debian 13 VM on this machine"
ansible-playbook --inventory "$INVENTORY" playbooks/vm_create.yml

stage "3/4 The playbook that an operator runs: playbooks/site.yml over SSH"
ansible-playbook --inventory "$INVENTORY" playbooks/site.yml
(umask 077 && ansible --inventory "$INVENTORY" onebox --become --module-name ansible.builtin.fetch \
    --args "src=/var/lib/onebox/secrets/api_key dest=$PWD/$STATE/api_key flat=true" >/dev/null)

stage "4/4 The sample corpus, and two questions"
export ONEBOX_URL=$URL ONEBOX_KEY_FILE=$STATE/api_key
python -m onebox ingest demo/corpus/passages.jsonl
echo
python -m onebox search "반품 정책은 어떻게 되나요?" --expect returns-ko-01
echo
python -m onebox search "How long do I have to return an item?" --expect returns-en-01

cat <<SUMMARY

The box answers at $URL (key: $STATE/api_key), total $((SECONDS / 60)):$(printf '%02d' $((SECONDS % 60))).

  make eval         how good its answers are, on the held-out queries
  make demo-down    remove it

Ask it something else, or open $URL in a browser (it asks for that key):
  .venv/bin/python -m onebox search --url $URL --key-file $STATE/api_key your question
SUMMARY
