# SPDX-License-Identifier: Apache-2.0
"""Envoy's TCP proxy filter, one worker thread. ENVOY_BIN names the program."""

import json

from peers.base import Peer, found_in, named_by, offers_post_quantum, output_of

TYPE = "type.googleapis.com/envoy."


class Envoy(Peer):
    """The program that ENVOY_BIN names."""

    name = "envoy"

    def __init__(self):
        self.program, self._missing = named_by("ENVOY_BIN")

    def missing(self):
        return self._missing

    def version(self):
        text = found_in(output_of(self.program, "--version"), r"version: (\S+)")
        parts = text.split("/")
        return f"{parts[1]}, {parts[-1]}" if len(parts) > 2 else text

    def command(self, workshop, side):
        path = workshop.write(f"envoy-{side.listen}.json", json.dumps(_config(side)))
        return [self.program, "-c", path, "--concurrency", "1", "--disable-hot-restart",
                "-l", "error"], {}


def _address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _common(side):
    """The TLS settings that both directions share. The group is what the others' OpenSSL offers first."""
    group = "X25519MLKEM768" if offers_post_quantum() else "X25519"
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3",
                       "tls_maximum_protocol_version": "TLSv1_3", "ecdh_curves": [group]},
        "tls_certificates": [{"certificate_chain": {"filename": side.own.cert},
                              "private_key": {"filename": side.own.key}}],
        "validation_context": {
            "trusted_ca": {"filename": side.root},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": side.other.spiffe_id}}]},
    }


def _client_tls(side):
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": TYPE + "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": _common(side), "sni": side.other.host,
        "max_session_keys": 4 if side.plan.resumption else 0}}


def _server_tls(side):
    off = not side.plan.resumption
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": TYPE + "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": _common(side), "require_client_certificate": True,
        "disable_stateless_session_resumption": off, "disable_stateful_session_resumption": off}}


def _config(side):
    """A static configuration: one listener, one cluster."""
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": TYPE + "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "bench", "cluster": "next", "idle_timeout": "3600s"}}]}
    limit = side.plan.connections + 100
    cluster = {
        "name": "next", "type": "STATIC", "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [{"max_connections": limit,
                                             "max_pending_requests": limit}]},
        "load_assignment": {"cluster_name": "next", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": _address(side.dial)}}]}]},
    }
    if side.is_client:
        cluster["transport_socket"] = _client_tls(side)
    else:
        chain["transport_socket"] = _server_tls(side)
    return {"static_resources": {
        "listeners": [{"name": "in", "address": _address(side.listen), "filter_chains": [chain]}],
        "clusters": [cluster]}}
