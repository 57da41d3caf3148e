#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

const char *err_name(int code)
{
    switch (code) {
#define X(name, number, text)                                                                      \
    case -(number): return #name;
        ERR_LIST(X)
#undef X
    case 0: return "OK";
    default: return "UNKNOWN";
    }
}

const char *err_text(int code)
{
    switch (code) {
#define X(name, number, text)                                                                      \
    case -(number): return text;
        ERR_LIST(X)
#undef X
    case 0: return "ok";
    default: return "unknown error";
    }
}

int err_set(struct err *e, int code, const char *format, ...)
{
    if (!e) return code;
    va_list ap;
    va_start(ap, format);
    vsnprintf(e->text, sizeof(e->text), format, ap);
    va_end(ap);
    return code;
}
