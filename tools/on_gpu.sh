#!/usr/bin/env bash
# What nobody has measured on a GPU yet, the most important first, into one folder.
#
#   tools/on_gpu.sh OUT [STEP...]
#
# The steps, all of them or those that are named: doctor quickstart tests phases warm_up posterior
# group_advantage evaluate.
#
# A step that fails or runs out of time stops no later one; the last line says which did. Each can be
# called again: training goes on where it stopped. It needs `exsearch` with the extras local and dev in
# $PYTHON, and for the last four steps data/four-sets and its index (recipes/four_sets.toml).
#
#   PYTHON    the interpreter; python3
#   MINUTES   of training, for each of three steps; 6
#   LIMIT     test questions of each data set; 300
#   SETTINGS  more for training, such as "--set e_step.questions=60"
#   DEVICE    cpu tries the script without a GPU
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${PYTHON:=python3}" "${MINUTES:=6}" "${LIMIT:=300}" "${SETTINGS:=}" "${DEVICE:=cuda}"
[ $# -ge 1 ] || { sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 2; }
out=$(realpath -m "$1")
shift
mkdir -p "$out"
[ "$DEVICE" = cpu ] && export EXSEARCH_TEST_DEVICE=cpu
exsearch() { "$PYTHON" -m exsearch "$@"; }
failed=()

doctor() { exsearch doctor && exsearch doctor --json; }
quickstart() { exsearch quickstart --size small --device "$DEVICE" --out "$out/quickstart"; }
tests() { "$PYTHON" -m pytest -m gpu tests/training/test_on_gpu.py; }
phases() { "$PYTHON" -m benchmarks.phases --json; }
train() { # OUT [SETTING...]
  local to=$1
  shift
  # shellcheck disable=SC2086  # settings are several words
  exsearch train recipes/gpu_four_sets.toml --device "$DEVICE" --minutes "$MINUTES" --out "$out/$to" \
    -q $SETTINGS "$@"
}
from_warm_up=(--model "$out/warmed-up" --set "warm_up.mix={}" --set warm_up.examples=0 --set data.dev=)
warm_up() { train warmed-up --set gem.iterations=0; }
posterior() { train posterior "${from_warm_up[@]}"; }
group_advantage() { # the same samples in round 1, weighed otherwise
  train group-advantage "${from_warm_up[@]}" --set "e_step.samples_of=$out/posterior" \
    --set e_step.weighting=group_advantage
}
evaluate() {
  local status=0 run stage set
  for run in warmed-up posterior group-advantage; do
    for stage in warm_up iteration-01 iteration-02; do
      [ -d "$out/$run/$stage/model" ] || continue
      for set in hotpotqa nq 2wikimultihopqa musique; do
        exsearch evaluate --questions "data/four-sets/$set-test.jsonl" --limit "$LIMIT" -q \
          --index data/four-sets-index --device "$DEVICE" --model "$out/$run/$stage/model" \
          --out "$out/test/$run-$stage-$set" || status=$?
      done
    done
  done
  return $status
}

for step in "${@:-doctor quickstart tests phases warm_up posterior group_advantage evaluate}"; do
  for name in $step; do
    case $name in doctor | quickstart | tests | phases | warm_up | posterior | group_advantage | evaluate) ;; *)
      echo "no step is called $name" >&2
      exit 2
      ;;
    esac
    began=$SECONDS
    "$name" >"$out/$name.log" 2>&1
    status=$?
    echo "$name: status $status, $((SECONDS - began)) s"
    tail -n 3 "$out/$name.log"
    [ "$status" = 0 ] || failed+=("$name")
  done
done
echo "failed or out of time: ${failed[*]:-nothing}"
[ ${#failed[@]} = 0 ]
