/* Shorthand for the JSON that clients write: builds a tree from a pattern.
 *
 *     kjson(a, "{metadata:{name:s,labels:o?},spec:{replicas:i},kind:'Pod'}", name, labels,
 * replicas)
 *
 * Values: s = const char *, t = struct slice, i = int64_t, b = int (a bool), o = struct json *
 * (adopted), 'text' = that string, T/F/N = true/false/null, {...} and [...] nest. '?' behind s, t
 * or o leaves a member or element out when it is NULL or empty. A member's name is written as it
 * is, or $ = const char *. Strings are borrowed: they must outlive the tree. NULL when out of
 * memory; a NULL given for a plain `o` becomes null. A malformed pattern is a bug (checked). */
#ifndef PINTLE_CLIENTS_LIB_KJSON_H
#define PINTLE_CLIENTS_LIB_KJSON_H

#include "base/json.h"

struct json *kjson(struct arena *a, const char *pattern, ...);

/* Removes all members but those named (a NULL-terminated list). Nothing happens to what is no
 * object. */
void kjson_keep(struct json *object, const char *const *names);

/* RFC 3339 in UTC: "2026-01-02T03:04:05Z", and with microseconds as leases have it. From the arena.
 */
const char *kjson_time(struct arena *a, int64_t wall_ms);
const char *kjson_micro_time(struct arena *a, int64_t wall_ms);
/* Milliseconds since the epoch; false if it is no RFC 3339 time. */
bool kjson_parse_time(struct slice text, int64_t *ret_ms);

#endif
