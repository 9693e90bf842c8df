# SPDX-License-Identifier: Apache-2.0
# The module table. tests/lint/layers.py reads it and fails on an #include of an edge that is not
# here; a new edge is a change of this table, with its reason in docs/ARCHITECTURE.md.

postern_proto(postern/v1)

postern_module(common/base LINKS postern_absl spdlog::spdlog Threads::Threads)
postern_module(common/x509 USES common/base LINKS OpenSSL::SSL OpenSSL::Crypto
  nlohmann_json::nlohmann_json)
postern_module(common/rpc USES common/x509 LINKS postern_grpc postern_protobuf)
postern_module(common/handover USES common/base)
postern_module(common/http USES common/base)

postern_module(proxy/config USES common/base common/x509 LINKS postern_yaml CLI11::CLI11
  nlohmann_json::nlohmann_json)
postern_module(proxy/telemetry USES common/base LINKS prometheus-cpp::core)
postern_module(proxy/net USES common/base LINKS PkgConfig::UV PkgConfig::CARES)
postern_module(proxy/request USES common/base)
postern_module(proxy/tls USES common/x509 LINKS OpenSSL::SSL)
postern_module(proxy/intercept USES proxy/net LINKS nlohmann_json::nlohmann_json)
postern_module(proxy/policy USES common/x509 proxy/config)
postern_module(proxy/identity USES common/x509 common/rpc proto/postern/v1 proxy/net proxy/config
  proxy/policy proxy/telemetry)
postern_module(proxy/session USES common/x509 common/handover proxy/config proxy/telemetry
  proxy/net proxy/tls proxy/intercept proxy/policy proxy/identity proxy/request)
postern_module(proxy/admin USES proxy/session proxy/telemetry proxy/config proxy/identity proxy/net
  common/http)

postern_module(proxy/process USES proxy/admin proxy/session proxy/identity proxy/config
  proxy/telemetry proxy/net common/http common/handover LINKS nlohmann_json::nlohmann_json)

postern_module(control/store USES common/base common/x509 LINKS SQLite::SQLite3)
postern_module(control/attest USES common/base common/x509 control/store)
postern_module(control/ca USES common/base common/x509 control/store)
postern_module(control/issue USES common/base common/x509 control/store control/attest control/ca)
postern_module(control/mesh USES common/base common/x509 control/store)
postern_module(control/federation USES common/base common/x509 control/store)
postern_module(control/service USES common/base common/x509 common/rpc common/http control/store control/attest
  control/ca control/issue control/mesh control/federation proto/postern/v1
  LINKS prometheus-cpp::core CLI11::CLI11)

postern_module(cli/run USES common/base common/handover)
postern_module(cli USES cli/run common/base common/x509 common/rpc proto/postern/v1 proxy/intercept
  proxy/policy proxy/config LINKS CLI11::CLI11 PkgConfig::HTTPLIB nlohmann_json::nlohmann_json)

postern_program(postern-proxy proxy USES proxy/process proxy/config common/rpc)
postern_program(postern-identity control USES control/service common/rpc)
postern_program(postern cli USES cli)
