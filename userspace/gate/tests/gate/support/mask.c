/* Makes /proc/self/exe another file than it runs (prctl(2), PR_SET_MM_MAP), which
 * root of a user namespace may do once nothing of its own file is mapped. Then it
 * connects, itself and as a child, and waits for an answer each time.
 *
 * usage: mask FILE ADDRESS PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static char own[4096];

/* Puts a copy without a file in the place of each mapping of the own one. */
static void unmap_own(void) {
    struct { unsigned long from, to; int rights; } mapped[64];
    int count = 0;
    char line[8192], rights[5];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (count < 64 && fgets(line, sizeof line, maps)) {
        if (!strstr(line, own)) continue;
        sscanf(line, "%lx-%lx %4s", &mapped[count].from, &mapped[count].to, rights);
        mapped[count++].rights = (rights[0] == 'r' ? PROT_READ : 0) |
            (rights[1] == 'w' ? PROT_WRITE : 0) | (rights[2] == 'x' ? PROT_EXEC : 0);
    }
    fclose(maps);
    for (int i = 0; i < count; i++) {
        size_t size = mapped[i].to - mapped[i].from;
        void *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memcpy(copy, (void *)mapped[i].from, size);
        mprotect(copy, size, mapped[i].rights);
        mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)mapped[i].from);
    }
}

static void put_on(const char *file) {
    uint64_t fields[60] = {0};
    char text[4096] = {0};
    int stat = open("/proc/self/stat", O_RDONLY);
    if (read(stat, text, sizeof text - 1) <= 0) exit(1);
    char *at = strrchr(text, ')') + 2;
    for (int field = 3; field < 52; field++) {
        fields[field] = strtoull(at, NULL, 10);
        at = strchr(at, ' ') + 1;
    }
    struct prctl_mm_map map = {
        .start_code = fields[26], .end_code = fields[27], .start_stack = fields[28],
        .start_data = fields[45], .end_data = fields[46], .start_brk = fields[47],
        .brk = (uint64_t)sbrk(0), .arg_start = fields[48], .arg_end = fields[49],
        .env_start = fields[50], .env_end = fields[51], .exe_fd = open(file, O_RDONLY),
    };
    if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) != 0) {
        perror("PR_SET_MM_MAP");
        exit(1);
    }
}

static void ask(const char *address, const char *port) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    inet_pton(AF_INET, address, &server.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    char answer;
    if (connect(s, (struct sockaddr *)&server, sizeof server) != 0 || read(s, &answer, 1) != 1) exit(1);
}

int main(int argc, char **argv) {
    if (argc != 4 || readlink("/proc/self/exe", own, sizeof own - 1) < 0) return 2;
    usleep(100000);
    unmap_own();
    put_on(argv[1]);
    char now[4096] = {0};
    if (readlink("/proc/self/exe", now, sizeof now - 1) < 0) return 1;
    puts(now);
    fflush(stdout);
    ask(argv[2], argv[3]);
    if (fork() == 0) {
        ask(argv[2], argv[3]);
        return 0;
    }
    wait(NULL);
    return 0;
}
