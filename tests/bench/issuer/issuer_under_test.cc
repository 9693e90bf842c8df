// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/issuer/issuer_under_test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/time/clock.h"
#include "common/base/strings.h"

namespace postern::bench {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(10);

// A port that was free a moment ago.
uint16_t FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool bound = bind(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  return bound ? ntohs(address.sin_port) : 0;
}

// In the child: becomes the program, or ends.
[[noreturn]] void Become(const std::vector<std::string>& words, const std::string& log) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(fd, STDERR_FILENO);
  std::vector<char*> argv;
  for (const std::string& word : words) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);
  execv(argv.front(), argv.data());
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<IssuerUnderTest>> IssuerUnderTest::Start(
    const std::string& program) {
  std::unique_ptr<IssuerUnderTest> issuer(new IssuerUnderTest());
  absl::Status status = issuer->Launch(program);
  if (status.ok()) {
    status = issuer->Await();
  }
  if (!status.ok()) {
    return status;
  }
  return issuer;
}

absl::Status IssuerUnderTest::Launch(const std::string& program) {
  const char* base = std::getenv("TMPDIR");
  std::string name = base::StrCat(base == nullptr ? "/tmp" : base, "/postern-bench-XXXXXX");
  if (mkdtemp(name.data()) == nullptr) {
    return absl::UnavailableError(base::StrCat("cannot make ", name));
  }
  directory_ = name;
  port_ = FreePort();
  const std::vector<std::string> words = {program,
                                          "--trust-domain",
                                          "bench.test",
                                          "--state-dir",
                                          directory_ + "/state",
                                          "--socket",
                                          directory_ + "/admin.sock",
                                          "--listen",
                                          base::StrCat("127.0.0.1:", port_),
                                          "--admin",
                                          "127.0.0.1:0",
                                          "--certify-rate",
                                          "0"};
  pid_ = fork();
  if (pid_ == 0) {
    Become(words, directory_ + "/log");
  }
  return pid_ > 0 ? absl::OkStatus() : absl::UnavailableError("cannot fork");
}

absl::Status IssuerUnderTest::Await() {
  const absl::Time deadline = absl::Now() + kPatience;
  while (absl::Now() < deadline) {
    auto connected = cli::AdminClient::Connect(directory_ + "/admin.sock");
    if (connected.ok() && (*connected)->GetStatus().ok()) {
      admin_ = *std::move(connected);
      return absl::OkStatus();
    }
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      std::stringstream log;
      log << std::ifstream(directory_ + "/log").rdbuf();
      return absl::UnavailableError(base::StrCat("the issuer ended: ", log.str()));
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  return absl::UnavailableError("the issuer does not answer on its socket");
}

IssuerUnderTest::~IssuerUnderTest() {
  admin_.reset();
  if (pid_ > 0) {
    kill(pid_, SIGKILL);  // its state goes with it
    waitpid(pid_, nullptr, 0);
  }
  if (!directory_.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
}

absl::Duration IssuerUnderTest::Cpu() const {
  clockid_t clock{};
  timespec time{};
  if (clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &time) != 0) {
    return absl::ZeroDuration();
  }
  return absl::DurationFromTimespec(time);
}

uint64_t IssuerUnderTest::PssKib() const {
  std::ifstream rollup(base::StrCat("/proc/", pid_, "/smaps_rollup"));
  std::string word;
  while (rollup >> word) {
    if (word == "Pss:") {
      uint64_t kib = 0;
      rollup >> kib;
      return kib;
    }
  }
  return 0;
}

}  // namespace postern::bench
