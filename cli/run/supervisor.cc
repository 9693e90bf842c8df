// SPDX-License-Identifier: Apache-2.0
#include "cli/run/supervisor.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <memory>
#include <optional>
#include <ostream>
#include <system_error>
#include <utility>

#include "cli/run/caller.h"
#include "cli/run/children.h"
#include "cli/run/connects.h"
#include "cli/run/doorway.h"
#include "cli/run/event_loop.h"
#include "cli/run/filter.h"
#include "cli/run/listens.h"
#include "cli/run/notifier.h"
#include "cli/run/output_tail.h"
#include "cli/run/proxy_link.h"
#include "common/base/sanitized.h"
#include "common/base/strings.h"

namespace postern::run {
namespace {

using std::chrono::milliseconds;

constexpr int kSignalBase = 128;
constexpr int kCannotExecute = 126;
constexpr int kNotFound = 127;
// Beyond its own drain deadline.
constexpr milliseconds kProxyEndSlack{2000};

int StatusOf(int waited) {
  return WIFSIGNALED(waited) ? kSignalBase + WTERMSIG(waited) : WEXITSTATUS(waited);
}

std::string ErrorText(int error) {
  return std::generic_category().message(error);
}

class Supervisor {
 public:
  Supervisor(const Options& options, std::ostream& err) : options_(options), err_(err) {}
  ~Supervisor();

  absl::StatusOr<int> Run();

 private:
  absl::Status Prepare();
  absl::Status OpenSignals();
  absl::Status OpenProxy();
  absl::StatusOr<base::UniqueFd> OpenProxyOutput();
  absl::Status AwaitProxy();
  absl::Status BeginCommand();
  void EndProxy();

  void OnSignal();
  void Forward(const signalfd_siginfo& signal);
  void OnChildren();
  void OnProxyGone();
  void OnNotification();

  const Options& options_;
  std::ostream& err_;
  std::unique_ptr<EventLoop> loop_;
  Inherited inherited_;
  base::UniqueFd signals_;
  std::unique_ptr<OutputTail> proxy_output_;
  std::unique_ptr<ProxyLink> link_;
  std::unique_ptr<Doorway> doorway_;
  std::unique_ptr<Notifier> notifier_;
  std::unique_ptr<Connects> connects_;
  std::unique_ptr<Listens> listens_;
  pid_t proxy_ = 0;    // 0: none, or it has ended
  pid_t command_ = 0;  // 0: it has not begun, or has ended
  bool ready_ = false;
  bool late_ = false;
  bool ending_ = false;
  int interrupted_ = 0;  // by this signal, before the command began
  std::optional<int> status_;
};

absl::StatusOr<int> Supervisor::Run() {
  for (const auto step : {&Supervisor::Prepare, &Supervisor::OpenSignals, &Supervisor::OpenProxy,
                          &Supervisor::AwaitProxy}) {
    if (absl::Status done = (this->*step)(); !done.ok()) {
      EndProxy();
      return done;
    }
  }
  if (interrupted_ == 0) {
    const absl::Status begun = BeginCommand();
    if (absl::IsNotFound(begun) || absl::IsPermissionDenied(begun)) {
      err_ << "postern: " << base::Message(begun) << "\n";
      status_ = absl::IsNotFound(begun) ? kNotFound : kCannotExecute;
    } else if (!begun.ok()) {
      EndProxy();
      return begun;
    }
  } else {
    status_ = kSignalBase + interrupted_;
  }
  while (!status_.has_value()) {
    loop_->Run();
  }
  EndProxy();
  return *status_;
}

absl::Status Supervisor::Prepare() {
  if (const std::string_view why = WhyUnsupported(); !why.empty()) {
    return absl::UnimplementedError(base::ToAbsl(why));
  }
  absl::StatusOr<std::unique_ptr<EventLoop>> loop = EventLoop::Create();
  if (!loop.ok()) {
    return loop.status();
  }
  loop_ = *std::move(loop);
  // Processes that the command leaves behind stay below this one, which may then still look at
  // them where only a parent may (Yama); and the command, of the same user, may not look at it.
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (!base::kSanitized) {
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  }
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    inherited_.descriptors = files.rlim_cur;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  return absl::OkStatus();
}

absl::Status Supervisor::OpenSignals() {
  sigset_t taken;
  sigemptyset(&taken);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD}) {
    sigaddset(&taken, number);
  }
  sigset_t blocked = taken;
  sigaddset(&blocked, SIGPIPE);  // a message that nobody reads is no reason to end
  if (sigprocmask(SIG_BLOCK, &blocked, &inherited_.signals) != 0) {
    return absl::InternalError(base::StrCat("sigprocmask: ", ErrorText(errno)));
  }
  signals_.Reset(signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.is_open()) {
    return absl::InternalError(base::StrCat("signalfd: ", ErrorText(errno)));
  }
  loop_->Watch(signals_.get(), EPOLLIN, [this] { OnSignal(); });
  return absl::OkStatus();
}

absl::StatusOr<base::UniqueFd> Supervisor::OpenProxyOutput() {
  if (options_.proxy_log.empty()) {
    proxy_output_ = std::make_unique<OutputTail>(*loop_);
    return proxy_output_->Open();
  }
  base::UniqueFd log(options_.proxy_log == "-"
                         ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)
                         : open(options_.proxy_log.c_str(),
                                O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!log.is_open()) {
    return absl::InvalidArgumentError(
        base::StrCat("--proxy-log: ", options_.proxy_log, ": ", ErrorText(errno)));
  }
  return log;
}

absl::Status Supervisor::OpenProxy() {
  absl::StatusOr<base::UniqueFd> output = OpenProxyOutput();
  if (!output.ok()) {
    return output.status();
  }
  auto channel = handover::MakeChannel();
  if (!channel.ok()) {
    return channel.status();
  }
  absl::StatusOr<pid_t> started = StartProxy(
      {options_.proxy, options_.proxy_words, channel->second.get(), output->get()}, inherited_);
  if (!started.ok()) {
    return started.status();
  }
  proxy_ = *started;
  link_ = std::make_unique<ProxyLink>(*loop_, std::move(channel->first),
                                      ProxyLink::Callbacks{[this] {
                                                             ready_ = true;
                                                             loop_->Stop();
                                                           },
                                                           [this] { OnProxyGone(); }});
  absl::StatusOr<std::unique_ptr<Doorway>> doorway = Doorway::Open(*loop_, *link_);
  if (!doorway.ok()) {
    return doorway.status();
  }
  doorway_ = *std::move(doorway);
  return absl::OkStatus();
}

absl::Status Supervisor::AwaitProxy() {
  const uint64_t timer = loop_->After(options_.ready_timeout, [this] {
    late_ = true;
    loop_->Stop();
  });
  while (!ready_ && !late_ && link_->is_open() && interrupted_ == 0) {
    loop_->Run();
  }
  loop_->Cancel(timer);
  if (ready_ || interrupted_ != 0) {
    return absl::OkStatus();
  }
  const std::string said = proxy_output_ != nullptr ? proxy_output_->Text() : std::string();
  const std::string what =
      late_ ? base::StrCat("the proxy was not ready within ",
                           std::chrono::ceil<std::chrono::seconds>(options_.ready_timeout).count(),
                           " s (--ready-timeout)")
            : "the proxy did not start";
  const std::string text = base::StrCat(what, said.empty() ? "" : "; it said:\n", said);
  return late_ ? absl::DeadlineExceededError(text) : absl::UnavailableError(text);
}

absl::Status Supervisor::BeginCommand() {
  absl::StatusOr<StartedCommand> started = StartCommand(options_.command, inherited_);
  if (!started.ok()) {
    return started.status();
  }
  command_ = started->process;
  notifier_ = std::make_unique<Notifier>(std::move(started->notifications));
  connects_ = std::make_unique<Connects>(*loop_, *notifier_, *doorway_);
  listens_ = std::make_unique<Listens>(*notifier_, *link_);
  loop_->Watch(notifier_->fd(), EPOLLIN, [this] { OnNotification(); });
  return absl::OkStatus();
}

void Supervisor::OnNotification() {
  const std::optional<Call> call = notifier_->Receive();
  if (!call.has_value()) {
    return;
  }
  const Caller caller(*notifier_, *call);
  switch (call->number) {
    case SYS_connect:
      connects_->Handle(*call, caller);
      return;
    case SYS_bind:
      listens_->HandleBind(*call, caller);
      return;
    case SYS_listen:
      listens_->HandleListen(*call, caller);
      return;
    default:
      notifier_->Answer(call->id, ENOSYS);  // the filter asks for no other
  }
}

void Supervisor::OnSignal() {
  signalfd_siginfo signal{};
  while (read(signals_.get(), &signal, sizeof(signal)) == static_cast<ssize_t>(sizeof(signal))) {
    if (signal.ssi_signo == SIGCHLD) {
      OnChildren();
    } else {
      Forward(signal);
    }
  }
}

void Supervisor::Forward(const signalfd_siginfo& signal) {
  const int number = static_cast<int>(signal.ssi_signo);
  if (ending_) {
    if (proxy_ != 0) {
      kill(proxy_, SIGKILL);  // the command has ended, and whoever asks again does not wait
    }
  } else if (command_ == 0) {
    interrupted_ = number;
    loop_->Stop();
  } else if (signal.ssi_code != SI_KERNEL) {
    // What a terminal sends has reached the command already: it is in the same group.
    kill(command_, number);
  }
}

void Supervisor::OnChildren() {
  int waited = 0;
  for (pid_t child = waitpid(-1, &waited, WNOHANG); child > 0;
       child = waitpid(-1, &waited, WNOHANG)) {
    if (child == command_) {
      command_ = 0;
      status_ = StatusOf(waited);
      loop_->Stop();
    } else if (child == proxy_) {
      proxy_ = 0;
      link_->Close();
      loop_->Stop();
    }
  }
}

void Supervisor::OnProxyGone() {
  loop_->Stop();
  if (command_ == 0 || ending_) {
    return;
  }
  err_ << "postern: the proxy has ended; the command goes on, and is refused every connection\n";
  if (proxy_output_ != nullptr) {
    err_ << proxy_output_->Text();
  }
  err_.flush();
}

// What the command has left behind finds nobody to ask from here on (ENOSYS). What it has written
// is still carried, as long as the proxy drains.
void Supervisor::EndProxy() {
  ending_ = true;
  if (notifier_ != nullptr) {
    loop_->Forget(notifier_->fd());
  }
  connects_.reset();
  listens_.reset();
  notifier_.reset();
  if (proxy_ == 0) {
    return;
  }
  kill(proxy_, SIGTERM);
  const uint64_t timer = loop_->After(options_.drain_timeout + kProxyEndSlack, [this] {
    if (proxy_ != 0) {
      kill(proxy_, SIGKILL);
    }
  });
  while (proxy_ != 0) {
    loop_->Run();
  }
  loop_->Cancel(timer);
}

Supervisor::~Supervisor() {
  if (loop_ != nullptr && signals_.is_open()) {
    loop_->Forget(signals_.get());
    sigprocmask(SIG_SETMASK, &inherited_.signals, nullptr);
  }
}

}  // namespace

absl::StatusOr<int> Supervise(const Options& options, std::ostream& err) {
  return Supervisor(options, err).Run();
}

}  // namespace postern::run
