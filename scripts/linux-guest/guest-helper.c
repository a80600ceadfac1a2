// What a test needs inside the guest and a shell cannot do: the rpmsg ioctls, message-preserving echo, a step-by-step agent.
// Static, armhf; see usage() for the commands.
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void usage(FILE *out) {
  fputs(
      "guest-helper create-device CTRL NAME SRC DST     RPMSG_CREATE_DEV_IOCTL on /dev/rpmsg_ctrlN; announced if SRC is not any\n"
      "guest-helper release-device CTRL NAME SRC DST    RPMSG_RELEASE_DEV_IOCTL\n"
      "guest-helper create-endpoint CTRL NAME SRC DST   RPMSG_CREATE_EPT_IOCTL: a /dev/rpmsgN, never announced\n"
      "guest-helper serve DEVICE LABEL [HELLO]          writes HELLO, then answers every read with one equal write\n"
      "guest-helper agent                               reads commands from standard input, one OK or ERR line for each:\n"
      "    create-device|release-device|create-endpoint CTRL NAME SRC DST\n"
      "    open HANDLE DEVICE [nonblock]                HANDLE is any word; a tty is set to raw\n"
      "    write HANDLE TEXT                            one write; TEXT is the rest of the line\n"
      "    write-hex HANDLE HEX                         one write\n"
      "    read HANDLE TIMEOUT-MS                       one read: OK LENGTH HEX, or ERR timeout\n"
      "    flood HANDLE COUNT SIZE                      COUNT writes of SIZE bytes, each starting with its number (8 hex digits)\n"
      "    destroy-endpoint HANDLE                      RPMSG_DESTROY_EPT_IOCTL\n"
      "    close HANDLE\n"
      "    quit\n"
      "guest-helper run ID COMMAND                      runs a shell command for init: START, OUT and DONE lines\n"
      "Addresses are decimal, 0x hexadecimal, or any.\n",
      out);
}

// linux/rpmsg.h, which the cross compiler's headers lack in some releases.
struct endpoint_info {
  char name[32];
  uint32_t src;
  uint32_t dst;
};
#define RPMSG_CREATE_EPT _IOW(0xb5, 1, struct endpoint_info)
#define RPMSG_DESTROY_EPT _IO(0xb5, 2)
#define RPMSG_CREATE_DEV _IOW(0xb5, 3, struct endpoint_info)
#define RPMSG_RELEASE_DEV _IOW(0xb5, 4, struct endpoint_info)

static bool parse_number(const char *text, unsigned long *value) {
  char *end;
  errno = 0;
  *value = strtoul(text, &end, 0);
  return isdigit((unsigned char)text[0]) && *end == 0 && errno == 0;
}

static bool parse_address(const char *text, uint32_t *address) {
  unsigned long value;
  if (strcmp(text, "any") == 0) {
    *address = UINT32_MAX;
    return true;
  }
  if (!parse_number(text, &value)) return false;
  *address = (uint32_t)value;
  return true;
}

static unsigned long control_request(const char *command) {
  if (strcmp(command, "create-device") == 0) return RPMSG_CREATE_DEV;
  if (strcmp(command, "release-device") == 0) return RPMSG_RELEASE_DEV;
  if (strcmp(command, "create-endpoint") == 0) return RPMSG_CREATE_EPT;
  return 0;
}

// arguments: CTRL NAME SRC DST. Returns NULL, or what is wrong.
static const char *control(unsigned long request, char *const arguments[4]) {
  struct endpoint_info info = {0};
  if (strlen(arguments[1]) >= sizeof info.name) return "the name is too long";
  strcpy(info.name, arguments[1]);
  if (!parse_address(arguments[2], &info.src) || !parse_address(arguments[3], &info.dst)) return "not an address";
  int fd = open(arguments[0], O_RDWR | O_CLOEXEC);
  if (fd < 0) return strerror(errno);
  const char *problem = ioctl(fd, request, &info) < 0 ? strerror(errno) : NULL;
  close(fd);
  return problem;
}

static int open_device(const char *path, int flags) {
  int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | flags);
  struct termios settings;
  if (fd >= 0 && tcgetattr(fd, &settings) == 0) {
    cfmakeraw(&settings);
    tcsetattr(fd, TCSANOW, &settings);
  }
  return fd;
}

// serve

// A character device takes a message whole or not at all; a tty may take it in parts.
static bool write_all(int fd, const char *data, size_t length) {
  size_t done = 0;
  do {
    ssize_t count = write(fd, data + done, length - done);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count < 0) return false;
    done += (size_t)count;
  } while (done < length);
  return true;
}

static int serve(const char *device, const char *label, const char *hello) {
  static char message[65536];
  unsigned long messages = 0, bytes = 0, unanswered = 0;
  int fd = open_device(device, 0);
  if (fd < 0) {
    fprintf(stderr, "%s: %s\n", device, strerror(errno));
    return 1;
  }
  bool tty = isatty(fd);
  if (hello != NULL && !write_all(fd, hello, strlen(hello))) printf("%s hello failed: %s\n", label, strerror(errno));
  printf("%s serving %s\n", label, device);
  for (;;) {
    ssize_t length = read(fd, message, sizeof message);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0 || (length == 0 && tty)) {
      printf("%s gone after %lu messages, %lu bytes: %s\n", label, messages, bytes, length < 0 ? strerror(errno) : "hangup");
      return 0;
    }
    if (messages++ == 0) printf("%s first message: %zd bytes\n", label, length);
    bytes += (unsigned long)length;
    if (!write_all(fd, message, (size_t)length) && unanswered++ == 0) printf("%s cannot answer: %s\n", label, strerror(errno));
  }
}

// agent

#define HANDLES 64
#define MESSAGE_MAX 65536
static struct {
  char name[32];
  int fd;
} handles[HANDLES];

static int find_handle(const char *name) {
  for (int i = 0; i < HANDLES; i++)
    if (strcmp(handles[i].name, name) == 0 && name[0] != 0) return i;
  return -1;
}

static const char *agent_open(const char *name, const char *path, const char *option) {
  int slot = 0;
  if (option != NULL && strcmp(option, "nonblock") != 0) return "unknown option";
  if (strlen(name) >= sizeof handles[0].name) return "the handle is too long";
  if (find_handle(name) >= 0) return "the handle is in use";
  while (slot < HANDLES && handles[slot].name[0] != 0) slot++;
  if (slot == HANDLES) return "too many handles";
  int fd = open_device(path, option != NULL ? O_NONBLOCK : 0);
  if (fd < 0) return strerror(errno);
  strcpy(handles[slot].name, name);
  handles[slot].fd = fd;
  return NULL;
}

static const char *agent_write(int fd, const char *data, size_t length) {
  ssize_t count = write(fd, data, length);
  if (count < 0) return strerror(errno);
  return (size_t)count == length ? NULL : "short write";
}

static const char *agent_write_hex(int fd, const char *hex) {
  static char data[MESSAGE_MAX];
  size_t length = strlen(hex) / 2;
  if (strlen(hex) % 2 != 0 || length > sizeof data) return "not an even number of hex digits";
  for (size_t i = 0; i < length; i++) {
    char digits[3] = {hex[2 * i], hex[2 * i + 1], 0}, *end;
    data[i] = (char)strtoul(digits, &end, 16);
    if (end != digits + 2) return "not a hex digit";
  }
  return agent_write(fd, data, length);
}

// Prints its own OK line.
static const char *agent_read(int fd, const char *timeout) {
  static unsigned char data[MESSAGE_MAX];
  unsigned long milliseconds;
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  if (!parse_number(timeout, &milliseconds)) return "not a number of milliseconds";
  int count = poll(&ready, 1, (int)milliseconds);
  if (count < 0) return strerror(errno);
  if (count == 0) return "timeout";
  ssize_t length = read(fd, data, sizeof data);
  if (length < 0) return strerror(errno);
  printf("OK %zd ", length);
  for (ssize_t i = 0; i < length; i++) printf("%02x", data[i]);
  putchar('\n');
  return NULL;
}

static const char *agent_flood(int fd, const char *count_text, const char *size_text) {
  static char data[MESSAGE_MAX + 1];
  unsigned long count, size;
  if (!parse_number(count_text, &count) || !parse_number(size_text, &size)) return "not a number";
  if (size < 8 || size > MESSAGE_MAX) return "the size is out of range";
  memset(data, '.', size);
  for (unsigned long i = 0; i < count; i++) {
    char number[9];
    snprintf(number, sizeof number, "%08lx", i);
    memcpy(data, number, 8);
    const char *problem = agent_write(fd, data, size);
    if (problem != NULL) return problem;
  }
  return NULL;
}

// Splits off the next word; *rest is then what follows it.
static char *next_word(char **rest) {
  while (**rest == ' ') ++*rest;
  if (**rest == 0) return NULL;
  char *word = *rest;
  while (**rest != ' ' && **rest != 0) ++*rest;
  if (**rest == ' ') *(*rest)++ = 0;
  return word;
}

#define ANSWERED ((const char *)-1)

static const char *agent_handle_command(const char *command, char *rest) {
  char *name = next_word(&rest);
  if (name == NULL) return "a handle is missing";
  if (strcmp(command, "open") == 0) {
    char *path = next_word(&rest);
    return path == NULL ? "a device is missing" : agent_open(name, path, next_word(&rest));
  }
  int slot = find_handle(name);
  if (slot < 0) return "no such handle";
  int fd = handles[slot].fd;
  if (strcmp(command, "close") == 0) {
    handles[slot].name[0] = 0;
    return close(fd) < 0 ? strerror(errno) : NULL;
  }
  if (strcmp(command, "destroy-endpoint") == 0) return ioctl(fd, RPMSG_DESTROY_EPT) < 0 ? strerror(errno) : NULL;
  if (strcmp(command, "write") == 0) return agent_write(fd, rest, strlen(rest));
  char *first = next_word(&rest), *second = next_word(&rest);
  if (strcmp(command, "write-hex") == 0) return agent_write_hex(fd, first == NULL ? "" : first);
  if (first == NULL) return "an argument is missing";
  if (strcmp(command, "read") == 0) {
    const char *problem = agent_read(fd, first);
    return problem == NULL ? ANSWERED : problem;
  }
  if (strcmp(command, "flood") == 0) return second == NULL ? "an argument is missing" : agent_flood(fd, first, second);
  return "unknown command";
}

static const char *agent_command(const char *command, char *rest) {
  unsigned long request = control_request(command);
  if (request == 0) return agent_handle_command(command, rest);
  char *arguments[4];
  for (int i = 0; i < 4; i++)
    if ((arguments[i] = next_word(&rest)) == NULL) return "CTRL NAME SRC DST expected";
  return control(request, arguments);
}

static int agent(void) {
  char *line = NULL;
  size_t capacity = 0;
  ssize_t length;
  puts("OK agent");
  while ((length = getline(&line, &capacity, stdin)) > 0) {
    if (line[length - 1] == '\n') line[length - 1] = 0;
    char *rest = line, *command = next_word(&rest);
    if (command == NULL) continue;
    if (strcmp(command, "quit") == 0) {
      puts("OK");
      return 0;
    }
    const char *problem = agent_command(command, rest);
    if (problem == NULL) puts("OK");
    else if (problem != ANSWERED) printf("ERR %s\n", problem);
  }
  return 0;
}

// run: lets init start any number of commands on one console. Every line is one write, so lines of commands never mix:
//   START ID PID      the command runs; PID is its process group
//   OUT ID TEXT       a line of its output
//   DONE ID STATUS    it has ended: exit status, or 128 + signal. A child it left behind may write OUT lines even later.

static void emit(const char *format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  write_all(STDOUT_FILENO, line, strlen(line));
}

// The line being collected, from its "OUT ID " on. The agent's longest answer fits.
static struct {
  char data[4 * MESSAGE_MAX];
  size_t length;
  size_t prefix;
} pending;

static void emit_pending(void) {
  pending.data[pending.length++] = '\n';
  write_all(STDOUT_FILENO, pending.data, pending.length);
  pending.length = pending.prefix;
}

// Passes on what the pipe has; false at its end.
static bool forward(int pipe_fd) {
  char chunk[4096];
  ssize_t length;
  while ((length = read(pipe_fd, chunk, sizeof chunk)) > 0)
    for (ssize_t i = 0; i < length; i++) {
      if (chunk[i] != '\n') pending.data[pending.length++] = chunk[i];
      if (chunk[i] == '\n' || pending.length == sizeof pending.data - 1) emit_pending();
    }
  return length < 0;
}

static int run(const char *id, const char *command) {
  char input[64];
  int output[2], status;
  snprintf(input, sizeof input, "/run/input.%s", id);
  // Read-write: a FIFO without a writer neither blocks here nor ends the command's input.
  int input_fd = open(input, O_RDWR | O_CLOEXEC);
  if (input_fd < 0) input_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (input_fd < 0 || pipe2(output, O_CLOEXEC) < 0) {
    emit("OUT %s guest-helper: %s\nDONE %s 126\n", id, strerror(errno), id);
    return 1;
  }
  pid_t child = fork();
  if (child == 0) {
    setsid();
    dup2(input_fd, STDIN_FILENO);
    dup2(output[1], STDOUT_FILENO);
    dup2(output[1], STDERR_FILENO);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
  }
  int child_fd = child < 0 ? -1 : (int)syscall(SYS_pidfd_open, child, 0);
  if (child_fd < 0) {
    emit("OUT %s guest-helper: %s\nDONE %s 126\n", id, strerror(errno), id);
    return 1;
  }
  emit("START %s %d\n", id, (int)child);
  pending.prefix = pending.length = (size_t)snprintf(pending.data, sizeof pending.data, "OUT %s ", id);
  close(output[1]);
  fcntl(output[0], F_SETFL, O_NONBLOCK);
  struct pollfd events[2] = {{.fd = output[0], .events = POLLIN}, {.fd = child_fd, .events = POLLIN}};
  while (events[0].fd >= 0 || events[1].fd >= 0) {
    if (poll(events, 2, -1) < 0) continue;
    bool ended = events[1].fd >= 0 && events[1].revents != 0;
    if (events[0].fd >= 0 && !forward(output[0])) events[0].fd = -1;
    if (!ended) continue;
    if (pending.length > pending.prefix) emit_pending();
    waitpid(child, &status, 0);
    emit("DONE %s %d\n", id, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    events[1].fd = -1;
    unlink(input);
  }
  if (pending.length > pending.prefix) emit_pending();
  return 0;
}

int main(int count, char **arguments) {
  setlinebuf(stdout);
  const char *command = count > 1 ? arguments[1] : "";
  if (control_request(command) != 0 && count == 6) {
    const char *problem = control(control_request(command), &arguments[2]);
    if (problem != NULL) fprintf(stderr, "%s %s: %s\n", command, arguments[3], problem);
    return problem != NULL;
  }
  if (strcmp(command, "serve") == 0 && (count == 4 || count == 5)) return serve(arguments[2], arguments[3], arguments[4]);
  if (strcmp(command, "agent") == 0 && count == 2) return agent();
  if (strcmp(command, "run") == 0 && count == 4) return run(arguments[2], arguments[3]);
  bool help = strcmp(command, "help") == 0 || strcmp(command, "--help") == 0;
  usage(help ? stdout : stderr);
  return help ? 0 : 2;
}
