// Bytes one way over one TCP connection. `stream take PORT`: accepts a connection, reads to its end, prints bytes per second
// from the first byte to the last. `stream give HOST PORT BYTES`: connects, again and again for a minute, and sends.
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char piece[256 << 10];

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static struct addrinfo *looked_up(const char *host, const char *port) {
  struct addrinfo wanted = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = host ? 0 : AI_PASSIVE}, *found = NULL;
  return getaddrinfo(host, port, &wanted, &found) == 0 ? found : NULL;
}

static int take(const char *port) {
  struct addrinfo *at = looked_up(NULL, port);
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), stream;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (!at || bind(listener, at->ai_addr, at->ai_addrlen) != 0 || listen(listener, 1) != 0) return 1;
  if ((stream = accept(listener, NULL, NULL)) < 0) return 1;
  double began = 0, bytes = 0;
  for (ssize_t got; (got = read(stream, piece, sizeof piece)) > 0; bytes += (double)got)
    if (began == 0) began = now();
  printf("RATE %.0f\n", bytes / (now() - began));
  return 0;
}

static int give(const char *host, const char *port, double bytes) {
  for (int attempt = 0; attempt < 600; attempt++) {
    struct addrinfo *at = looked_up(host, port);
    int stream = socket(AF_INET, SOCK_STREAM, 0);
    if (at && connect(stream, at->ai_addr, at->ai_addrlen) == 0) {
      while (bytes > 0) {
        ssize_t sent = write(stream, piece, sizeof piece);
        if (sent < 0) return 1;
        bytes -= (double)sent;
      }
      return 0;
    }
    close(stream);
    if (at) freeaddrinfo(at);
    usleep(100000);
  }
  return 1;
}

int main(int count, char **word) {
  if (count == 3 && strcmp(word[1], "take") == 0) return take(word[2]);
  if (count == 5 && strcmp(word[1], "give") == 0) return give(word[2], word[3], atof(word[4]));
  return 2;
}
