/* Label selectors and what else decides whether an object fits: metav1.LabelSelector, plain maps,
 * node selector requirements, taints and tolerations. Pure functions on JSON trees. */
#ifndef PINTLE_CLIENTS_LIB_SELECTOR_H
#define PINTLE_CLIENTS_LIB_SELECTOR_H

#include "base/json.h"

/* metav1.LabelSelector {matchLabels, matchExpressions}; NULL matches nothing, {} everything. */
bool label_selector_matches(const struct json *selector, const struct json *labels);
/* A Service's selector: all pairs must be there; NULL and {} match nothing. */
bool selector_map_matches(const struct json *map, const struct json *labels);
/* Whether it is a LabelSelector we can work with: a sentence in `e` if not. */
int selector_check(const struct json *selector, struct err *e);

/* One requirement {key, operator, values} of a node selector (In NotIn Exists DoesNotExist Gt Lt).
 */
bool requirement_matches(const struct json *requirement, const struct json *labels);
/* A NodeSelectorTerm (matchExpressions on labels and matchFields on metadata.name); an empty one
 * matches nothing. */
bool node_term_matches(const struct json *term, const struct json *labels, struct slice node_name);
/* spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution: any of its terms; NULL
 * matches. */
bool node_selector_matches(const struct json *selector, const struct json *labels,
                           struct slice node_name);

bool toleration_tolerates(const struct json *toleration, const struct json *taint);
/* The toleration of the list that tolerates the taint, or NULL. */
const struct json *tolerations_find(const struct json *tolerations, const struct json *taint);

#endif
