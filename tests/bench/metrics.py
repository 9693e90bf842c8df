# SPDX-License-Identifier: Apache-2.0
"""Every number that is measured, declared once: its key, words, unit and which way is better."""


class Metric:
    """One row of the table."""

    def __init__(self, key, title, unit, digits=1, higher_is_better=False, compared=True):
        self.key, self.title, self.unit, self.digits = key, title, unit, digits
        self.higher_is_better, self.compared = higher_is_better, compared


METRICS = [
    Metric("request_cpu_us", "small request: CPU", "us"),
    Metric("request_rate", "small request: rate, 16 connections", "1/s", 0, True),
    Metric("request_p50_us", "small request: p50, closed loop", "us", 0),
    Metric("request_p99_us", "small request: p99, closed loop", "us", 0),
    Metric("paced_cpu_us", "small request at a fixed rate: CPU", "us"),
    Metric("added_p50_us", "latency added at a fixed rate: p50", "us", 0),
    Metric("added_p99_us", "latency added at a fixed rate: p99", "us", 0),
    Metric("latency_rate", "fixed rate: what was reached", "1/s", 0, True, False),
    Metric("full_cpu_ms", "new connection, full: CPU", "ms", 2),
    Metric("resumed_cpu_ms", "new connection, resumed: CPU", "ms", 2),
    Metric("bulk1_cpu_s_per_gb", "bulk, 1 stream: CPU per GB", "s", 2),
    Metric("bulk1_gbit_s", "bulk, 1 stream", "Gbit/s", 2, True),
    Metric("bulk8_cpu_s_per_gb", "bulk, 8 streams: CPU per GB", "s", 2),
    Metric("bulk8_gbit_s", "bulk, 8 streams", "Gbit/s", 2, True),
    Metric("idle_pss_mib", "PSS idle, mean of the two", "MiB"),
    Metric("connection_kib", "idle TLS connection and proxy", "KiB"),
    Metric("start_ms", "start to the first byte carried", "ms"),
    Metric("issuer_pss_mib", "PSS idle with an issuer stream", "MiB"),
    Metric("instructions_1", "instructions per request, 1 worker", "k", 1, False, False),
    Metric("instructions_2", "instructions per request, 2 workers", "k", 1, False, False),
    Metric("scale_connections", "scale: connections, 1,000 of them active", "", 0, False, False),
    Metric("scale_connection_kib", "scale: idle connection and proxy", "KiB"),
    Metric("scale_alone_p50_us", "scale: p50 of the active ones alone", "us", 0, False, False),
    Metric("scale_alone_p99_us", "scale: p99 of the active ones alone", "us", 0, False, False),
    Metric("scale_among_p50_us", "scale: p50 among the idle ones", "us", 0, False, False),
    Metric("scale_among_p99_us", "scale: p99 among the idle ones", "us", 0, False, False),
]
BY_KEY = {metric.key: metric for metric in METRICS}
