/* Asserts for our own bugs, on in release too. Bad input and bad disk data are errors, never these. */
#ifndef PINTLE_BASE_CHECK_H
#define PINTLE_BASE_CHECK_H

void check_failed(const char *file, int line, const char *what) __attribute__((noreturn));

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0)) check_failed(__FILE__, __LINE__, #cond);                 \
    } while (0)

#endif
