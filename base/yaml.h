/* One YAML document as a JSON tree, through libyaml's event parser: plain scalars as YAML 1.1 and Kubernetes read them; anchors and
 * aliases are refused (they are how a small file becomes a huge one). One thread. */
#ifndef PINTLE_BASE_YAML_H
#define PINTLE_BASE_YAML_H

#include "base/json.h"

/* ERR_INVALID with a sentence that names the line, ERR_LIMIT, ERR_NOMEM. Strings are copied into `a`. */
int yaml_to_json(struct arena *a, struct slice text, struct json **ret, struct err *e) MUST_CHECK;

#endif
