/* Base64 with padding (RFC 4648, section 4). */
#ifndef PINTLE_BASE_BASE64_H
#define PINTLE_BASE_BASE64_H

#include "base/arena.h"
#include "base/slice.h"

/* Check out->failed. */
int base64_append(struct buf *out, struct slice in);
/* With a NUL; NULL when out of memory. */
char *base64_encode(struct arena *a, struct slice in);
/* ERR_INVALID at the first character that is none of base64's. */
int base64_decode(struct buf *out, struct slice text) MUST_CHECK;

#endif
