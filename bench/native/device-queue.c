// The device side of a queue in C, to compare with: device-queue request|response BYTES MILLISECONDS
// Prints {"ns": N}, nanoseconds a message, the median over batches of one full ring. Per message: the chain is taken and
// checked, the header read or written, the payload copied, the buffer given back; the index is published once a batch.
// What the driver does is left out but for the publishing of one index, as in bench/load/device-queue-loop.ts.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define RING 256
#define BUFFER 512
#define BUFFERS 65536
#define HEADER 16
#define GUEST_BASE 0x40000000ull
#define MEMORY (BUFFERS + RING * BUFFER)
#define SAMPLES 1000000

struct descriptor { uint64_t address; uint32_t length; uint16_t flags, next; };
struct used_element { uint32_t id, length; };
struct header { uint32_t src, dst, reserved; uint16_t length, flags; };

static uint8_t *memory;
static struct descriptor *descriptors;
static uint16_t *available;  // flags, index, ring
static uint8_t *used;        // flags, index, ring
static uint8_t *out;
static uint16_t taken, given;
static uint32_t addresses;

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

// One full ring.
static void batch(int response, uint16_t size) {
  __atomic_store_n(&available[1], (uint16_t)(available[1] + RING), __ATOMIC_SEQ_CST);
  uint16_t end = __atomic_load_n(&available[1], __ATOMIC_ACQUIRE);
  while (taken != end) {
    uint16_t id = *(volatile uint16_t *)&available[2 + taken % RING];
    if (id >= RING) abort();
    volatile struct descriptor *entry = &descriptors[id];
    uint64_t offset = entry->address - GUEST_BASE;
    uint32_t length = entry->length;
    uint16_t flags = entry->flags;
    if (offset > MEMORY || length > MEMORY - offset || length < HEADER || flags != (response ? 2 : 0)) abort();
    uint8_t *buffer = memory + offset, *data = out + (taken % RING) * BUFFER;
    struct header header;
    uint32_t written = 0;
    if (response) {
      if (size > length - HEADER) abort();
      header = (struct header){1024, 1025, 0, size, 0};
      memcpy(buffer, &header, HEADER);
      memcpy(buffer + HEADER, data, size);
      written = HEADER + size;
    } else {
      memcpy(&header, buffer, HEADER);
      if (header.length > length - HEADER) abort();
      memcpy(data, buffer + HEADER, header.length);
      addresses += header.dst;
    }
    volatile struct used_element *element = (void *)(used + 4 + (given % RING) * sizeof *element);
    element->id = id;
    element->length = written;
    given++;
    taken++;
  }
  __atomic_store_n((uint16_t *)(used + 2), given, __ATOMIC_SEQ_CST);
}

int main(int count, char **arguments) {
  if (count != 4) return 2;
  int response = strcmp(arguments[1], "response") == 0;
  uint16_t size = (uint16_t)atoi(arguments[2]);
  uint64_t duration = (uint64_t)atoi(arguments[3]) * 1000000u;
  memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  out = calloc(RING, BUFFER);
  uint32_t *samples = malloc(SAMPLES * sizeof *samples);
  if (memory == MAP_FAILED || out == NULL || samples == NULL) return 1;
  descriptors = (void *)memory;
  available = (void *)(memory + 8192);
  used = memory + 16384;
  for (int i = 0; i < RING; i++) {
    descriptors[i] = (struct descriptor){GUEST_BASE + BUFFERS + (uint64_t)i * BUFFER, BUFFER, response ? 2 : 0, 0};
    available[2 + i] = (uint16_t)i;
    struct header header = {1024, 1025, 0, size, 0};
    memcpy(memory + BUFFERS + i * BUFFER, &header, HEADER);
  }
  size_t batches = 0;
  uint64_t start = now(), measured = start + duration / 4, before = start;
  while (before < start + duration && batches < SAMPLES) {
    batch(response, size);
    uint64_t after = now();
    if (before > measured) samples[batches++] = (uint32_t)(after - before);
    before = after;
  }
  if (batches == 0) return 1;
  qsort(samples, batches, sizeof *samples, compare);
  printf("{\"ns\": %.2f, \"check\": %u}\n", (double)samples[batches / 2] / RING, addresses & 1);
  return 0;
}
