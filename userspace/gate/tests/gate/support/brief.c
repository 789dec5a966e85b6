/* Lives for MILLISECONDS, two where nothing else is said: connects, says who it
 * is, and is gone. One in four is the child of one that has lived as long, and
 * has called no execve.
 *
 * usage: brief ADDRESS PORT NUMBER */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifndef MILLISECONDS
#define MILLISECONDS 2
#endif

static void live(void) {
    struct timespec time = {.tv_nsec = MILLISECONDS * 1000000};
    nanosleep(&time, NULL);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    uint32_t number = atoi(argv[3]);
    if (number % 4 == 3) {
        int parent = fork();
        live();
        if (parent) return 0;
    }
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&server, sizeof server) != 0) return 1;
    uint32_t said[2] = {getpid(), number};
    if (write(s, said, sizeof said) != sizeof said) return 1;
    live();
    return 0;
}
