/* The URLs of members: http://host:port or https://host:port, IPv6 hosts in brackets, nothing behind the port but '/'. */
#ifndef PINTLE_BASE_URL_H
#define PINTLE_BASE_URL_H

#include <stdbool.h>

#include "base/err.h"

struct url {
    bool tls;
    char host[256]; /* without brackets */
    int port;
};

/* ERR_INVALID with a sentence that shows the text. */
int url_parse(const char *text, struct url *ret, struct err *e) MUST_CHECK;

#endif
