/* A process that starts itself again, and one that is told to stop meanwhile. Each is a child of this one: `test_process again`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/process.h"

enum { AGAIN = 7 };

static int status_of(bool told_to_stop)
{
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        unsetenv("PINTLE_RESTARTS");
        execl("/proc/self/exe", "test_process", "again", told_to_stop ? "stop" : "go", NULL);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_again(void **state)
{
    (void)state;
    assert_int_equal(status_of(false), AGAIN);
}

static void test_told_to_stop(void **state)
{
    (void)state;
    assert_int_equal(status_of(true), 0);
}

/* Its second life has the same arguments, and knows that it is not the first. */
static void live(const char *how)
{
    sigset_t stop;
    log_set_level(LOG_ERROR);
    if (getenv("PINTLE_RESTARTS")) _exit(AGAIN);
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    if (strcmp(how, "stop") == 0) {
        pthread_sigmask(SIG_BLOCK, &stop, NULL);
        kill(getpid(), SIGTERM);
    }
    process_restart("a test");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_told_to_stop),
    };
    if (argc == 3) live(argv[2]);
    return cmocka_run_group_tests_name("process", tests, NULL, NULL);
}
