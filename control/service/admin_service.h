// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "control/issue/registry.h"
#include "control/service/certify_service.h"

namespace postern::service {

// postern.v1.Admin: the operator's verbs. For the server of the unix socket alone; each call checks
// the peer's credentials (root or this process's own user). Handlers block on the store.
std::unique_ptr<grpc::Service> MakeAdminService(const ServiceParts& parts,
                                                issue::Registry& registry);

}  // namespace postern::service
