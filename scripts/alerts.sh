#!/usr/bin/env bash
# The alert rules of examples/monitoring, by Prometheus' own promtool: they are valid, each alert fires when it is
# provoked, and each is silent where it should be. An alert without a test of both fails.
set -euo pipefail
cd "$(dirname "$0")/../examples/monitoring"

promtool check config prometheus.yml
promtool check rules ./*-alerts.yml
promtool test rules tests/*.yml

failed=0
for rules in *-alerts.yml; do
    tests=tests/${rules%-alerts.yml}.yml
    while read -r alert; do
        grep -q "alertname: $alert, exp_alerts: \[\]}" "$tests" || {
            echo "$tests has no test in which $alert is silent" >&2
            failed=1
        }
        grep -A1 "alertname: $alert\$" "$tests" | grep -q 'exp_alerts:$' || {
            echo "$tests has no test in which $alert fires" >&2
            failed=1
        }
    done < <(sed -n 's/^ *- alert: //p' "$rules")
done
exit $failed
