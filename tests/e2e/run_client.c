// SPDX-License-Identifier: Apache-2.0
// A client for `postern run`, to be linked statically: run_client WHAT [ADDRESS PORT ...]. Prints one
// line and ends with 0 when all held.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in target;

static void give_up(const char* what) {
  printf("%s: %s\n", what, strerror(errno));
  exit(1);
}

static struct sockaddr_in address_of(const char* ip, const char* port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  if (inet_pton(AF_INET, ip, &address.sin_addr) != 1) {
    give_up(ip);
  }
  return address;
}

static int new_socket(int flags) {
  const int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
  if (fd < 0) {
    give_up("socket");
  }
  return fd;
}

static int echoes(int fd) {
  char answer[6] = {0};
  return send(fd, "hello", 5, MSG_NOSIGNAL) == 5 && recv(fd, answer, 5, MSG_WAITALL) == 5 &&
         memcmp(answer, "hello", 5) == 0;
}

static int connect_target(int fd) {
  return connect(fd, (struct sockaddr*)&target, sizeof(target));
}

// A socket option, a registration with epoll and the descriptor's number outlive the connect.
static void with_epoll(void) {
  const int fd = new_socket(SOCK_NONBLOCK);
  const int size = 123456;
  int size_then = 0;
  int size_now = 0;
  socklen_t length = sizeof(int);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
  getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size_then, &length);
  const int epoll = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  if (connect_target(fd) == 0 || errno != EINPROGRESS) {
    give_up("connect is not in progress");
  }
  if (epoll_wait(epoll, &event, 1, 5000) != 1 || (event.events & EPOLLOUT) == 0) {
    give_up("epoll");
  }
  int error = -1;
  length = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size_now, &length);
  const int again = connect_target(fd);
  if (error != 0 || size_now != size_then || (again != 0 && errno != EISCONN)) {
    give_up("the socket has changed");
  }
  fcntl(fd, F_SETFL, 0);
  printf("epoll %s\n", echoes(fd) ? "ok" : "no echo");
}

static atomic_int failed_connects;
static int connects_each;

static void* connect_many(void* unused) {
  (void)unused;
  for (int i = 0; i < connects_each; ++i) {
    const int fd = new_socket(0);
    if (connect_target(fd) != 0 || !echoes(fd)) {
      atomic_fetch_add(&failed_connects, 1);
    }
    close(fd);
  }
  return NULL;
}

static void with_threads(int count) {
  pthread_t threads[256];
  for (int i = 0; i < count; ++i) {
    pthread_create(&threads[i], NULL, connect_many, NULL);
  }
  for (int i = 0; i < count; ++i) {
    pthread_join(threads[i], NULL);
  }
  printf("threads %d failed\n", atomic_load(&failed_connects));
}

static struct sockaddr_in shared_address;
static struct sockaddr_in forged;
static atomic_int racing = 1;

static void* rewrite(void* unused) {
  (void)unused;
  while (atomic_load(&racing)) {
    // Both are written, each time: the compiler is not to think that the first has no reader.
    memcpy(&shared_address, &forged, sizeof(forged));
    __asm__ volatile("" : : : "memory");
    memcpy(&shared_address, &target, sizeof(target));
    __asm__ volatile("" : : : "memory");
  }
  return NULL;
}

// One thread changes the address while the other connects with it, longer than it is told to where it
// has not met both yet.
static void with_race(int seconds) {
  pthread_t rewriter;
  int reached = 0;
  int refused = 0;
  shared_address = target;
  pthread_create(&rewriter, NULL, rewrite, NULL);
  const time_t end = time(NULL) + seconds;
  const time_t limit = end + 20;
  while (time(NULL) < end || ((reached == 0 || refused == 0) && time(NULL) < limit)) {
    const int fd = new_socket(0);
    if (connect(fd, (struct sockaddr*)&shared_address, sizeof(shared_address)) == 0) {
      reached += echoes(fd);
    } else {
      ++refused;
    }
    close(fd);
  }
  atomic_store(&racing, 0);
  pthread_join(rewriter, NULL);
  printf("%d %d\n", reached, refused);
}

static atomic_int alarms;

static void on_alarm(int number) {
  (void)number;
  atomic_fetch_add(&alarms, 1);
}

// Signals fall into the calls of connect all the time.
static void with_signals(int flags) {
  const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = flags};
  const struct itimerval often = {{0, 300}, {0, 300}};
  const struct itimerval never = {{0, 0}, {0, 0}};
  int interrupted = 0;
  sigaction(SIGALRM, &action, NULL);
  for (int i = 0; i < 300; ++i) {
    const int fd = new_socket(0);
    setitimer(ITIMER_REAL, &often, NULL);
    int done = connect_target(fd);
    while (done != 0 && (errno == EINTR || errno == EALREADY)) {
      ++interrupted;
      done = connect_target(fd);
    }
    const int error = errno;
    setitimer(ITIMER_REAL, &never, NULL);
    errno = error;
    if (done != 0 && errno != EISCONN) {
      give_up("connect");
    }
    if (!echoes(fd)) {
      give_up("echo");
    }
    close(fd);
  }
  printf("signals ok %d %d\n", atomic_load(&alarms) > 0, interrupted > 0);
}

// bind is done once, however often a signal makes the call come again.
static void bind_with_signals(void) {
  const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  const struct itimerval often = {{0, 200}, {0, 200}};
  const struct sockaddr_in any = {.sin_family = AF_INET};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &often, NULL);
  for (int i = 0; i < 2000; ++i) {
    const int fd = new_socket(0);
    if (bind(fd, (const struct sockaddr*)&any, sizeof(any)) != 0) {
      give_up("bind");
    }
    close(fd);
  }
  printf("bind ok %d\n", atomic_load(&alarms) > 0);
}

static void show(const char* what, long done) {
  printf("%s %s\n", what, done >= 0 ? "passed" : strerrorname_np(errno));
}

static void refused_calls(void) {
  char ring[128] = {0};
  show("io_uring_setup", syscall(SYS_io_uring_setup, 8, ring));
  const int fd = new_socket(0);
  show("fastopen", sendto(fd, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr*)&target,
                          sizeof(target)));
  struct iovec bytes = {"x", 1};
  struct msghdr message = {.msg_name = &target, .msg_namelen = sizeof(target), .msg_iov = &bytes,
                           .msg_iovlen = 1};
  show("fastopen sendmsg", sendmsg(fd, &message, MSG_FASTOPEN | MSG_NOSIGNAL));
  show("smc", socket(43, SOCK_STREAM, 0));
  show("sctp", socket(AF_INET, SOCK_STREAM, 132));
#if defined(__x86_64__)
  show("x32", syscall(0x40000000 + SYS_getpid));
#endif
}

static void foreign_abi(void) {
#if defined(__x86_64__)
  long result = 20;  // getpid of i386
  __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
  printf("i386 %s\n", result > 0 ? "passed" : "refused");
#else
  kill(getpid(), SIGSYS);
#endif
}

int main(int argc, char** argv) {
  if (argc < 2) {
    return 2;
  }
  if (argc >= 4) {
    target = address_of(argv[2], argv[3]);
  }
  const int number = argc >= 5 ? atoi(argv[4]) : 0;
  if (strcmp(argv[1], "echo") == 0) {
    const int fd = new_socket(0);
    struct sockaddr_in peer = {0};
    socklen_t length = sizeof(peer);
    if (connect_target(fd) != 0) {
      give_up("connect");
    }
    getpeername(fd, (struct sockaddr*)&peer, &length);
    printf("echo %s %s\n", echoes(fd) ? "ok" : "none", inet_ntoa(peer.sin_addr));
  } else if (strcmp(argv[1], "epoll") == 0) {
    with_epoll();
  } else if (strcmp(argv[1], "threads") == 0) {
    connects_each = argc >= 6 ? atoi(argv[5]) : 1;
    with_threads(number);
  } else if (strcmp(argv[1], "race") == 0 && argc >= 7) {
    forged = address_of(argv[5], argv[6]);
    with_race(number);
  } else if (strcmp(argv[1], "signals") == 0) {
    with_signals(number != 0 ? SA_RESTART : 0);
  } else if (strcmp(argv[1], "bind") == 0) {
    bind_with_signals();
  } else if (strcmp(argv[1], "refused") == 0) {
    refused_calls();
  } else if (strcmp(argv[1], "foreign") == 0) {
    foreign_abi();
  } else {
    return 2;
  }
  fflush(stdout);
  return 0;
}
