"""Reads metrics from standard input with the parser of Prometheus' own client for Python, which refuses what
the OpenMetrics specification does not allow. Prints one line for each sample, NAME{label="value",...} VALUE,
with the labels in the order of their names.
"""

import sys

from prometheus_client.openmetrics.parser import text_fd_to_metric_families

for family in text_fd_to_metric_families(sys.stdin):
    for sample in family.samples:
        labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
        print(f"{sample.name}{{{labels}}} {sample.value}")
