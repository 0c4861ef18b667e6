/* Prints the monotonic clock in nanoseconds: its first instruction's time, to compare with the starter's clock. */
#include <stdio.h>
#include <time.h>

int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("first=%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    return 0;
}
