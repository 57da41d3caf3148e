/* Which groups of watchers a key falls into: a hash table for watches of one key, and for ranges a
 * treap ordered by (begin, end) in which every node knows the range of its subtree that ends last,
 * so that subtrees that end before the key are never entered: O(log groups + hits) per event, a
 * list walk for any number of watchers of the same range. */
#include <xxhash.h>

#include "base/mem.h"
#include "watch/watch_int.h"

#define FIRST_BUCKETS 64

/* ---- single keys ----------------------------------------------------------------------------- */

static struct watch_group **bucket_of(const struct range_index *ix, struct slice key)
{
    return &ix->buckets[XXH3_64bits_withSeed(key.data, key.len, ix->seed) & (ix->n_buckets - 1)];
}

static struct watch_group *single_find(const struct range_index *ix, struct slice key)
{
    if (ix->n_single == 0) return NULL;
    for (struct watch_group *g = *bucket_of(ix, key); g; g = g->next) {
        if (slice_eq(g->begin, key)) return g;
    }
    return NULL;
}

/* Doubles the table when it is full; without memory for that the chains just grow. */
static bool single_room(struct range_index *ix)
{
    if (ix->n_single < ix->n_buckets) return true;
    size_t n = ix->n_buckets ? ix->n_buckets * 2 : FIRST_BUCKETS;
    struct watch_group **buckets = mem_calloc(n, sizeof(struct watch_group *));
    if (!buckets) return ix->n_buckets > 0;
    struct range_index bigger = {.buckets = buckets, .n_buckets = n, .seed = ix->seed};
    for (size_t i = 0; i < ix->n_buckets; i++) {
        for (struct watch_group *g = ix->buckets[i], *next; g; g = next) {
            next = g->next;
            struct watch_group **to = bucket_of(&bigger, g->begin);
            g->next = *to;
            *to = g;
        }
    }
    mem_free(ix->buckets);
    ix->buckets = buckets;
    ix->n_buckets = n;
    return true;
}

static void single_remove(struct range_index *ix, struct watch_group *g)
{
    struct watch_group **at = bucket_of(ix, g->begin);
    while (*at != g) at = &(*at)->next;
    *at = g->next;
    ix->n_single--;
}

/* ---- ranges ---------------------------------------------------------------------------------- */

static int cmp_end(const struct watch_group *a, const struct watch_group *b)
{
    if (a->unbounded || b->unbounded) return (int)a->unbounded - (int)b->unbounded;
    return slice_cmp(a->end, b->end);
}

static int cmp_range(const struct watch_group *a, const struct watch_group *b)
{
    int c = slice_cmp(a->begin, b->begin);
    return c ? c : cmp_end(a, b);
}

static void update_furthest(struct watch_group *g)
{
    g->furthest = g;
    if (g->left && cmp_end(g->left->furthest, g->furthest) > 0) g->furthest = g->left->furthest;
    if (g->right && cmp_end(g->right->furthest, g->furthest) > 0) g->furthest = g->right->furthest;
}

static uint64_t next_random(struct range_index *ix)
{
    uint64_t x = ix->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static struct watch_group *rotate_right(struct watch_group *g)
{
    struct watch_group *up = g->left;
    g->left = up->right;
    up->right = g;
    update_furthest(g);
    update_furthest(up);
    return up;
}

static struct watch_group *rotate_left(struct watch_group *g)
{
    struct watch_group *up = g->right;
    g->right = up->left;
    up->left = g;
    update_furthest(g);
    update_furthest(up);
    return up;
}

static struct watch_group *tree_insert(struct watch_group *at, struct watch_group *g)
{
    if (!at) {
        update_furthest(g);
        return g;
    }
    if (cmp_range(g, at) < 0) {
        at->left = tree_insert(at->left, g);
        if (at->left->priority > at->priority) return rotate_right(at);
    } else {
        at->right = tree_insert(at->right, g);
        if (at->right->priority > at->priority) return rotate_left(at);
    }
    update_furthest(at);
    return at;
}

static struct watch_group *tree_join(struct watch_group *left, struct watch_group *right)
{
    if (!left || !right) return left ? left : right;
    struct watch_group *top = left->priority > right->priority ? left : right;
    if (top == left) left->right = tree_join(left->right, right);
    else right->left = tree_join(left, right->left);
    update_furthest(top);
    return top;
}

static struct watch_group *tree_remove(struct watch_group *at, const struct watch_group *g)
{
    if (at == g) return tree_join(at->left, at->right);
    if (cmp_range(g, at) < 0) at->left = tree_remove(at->left, g);
    else at->right = tree_remove(at->right, g);
    update_furthest(at);
    return at;
}

static bool ends_after(const struct watch_group *g, struct slice key)
{
    return g->unbounded || slice_cmp(key, g->end) < 0;
}

static void tree_match(struct watch_group *at, struct slice key,
                       void (*hit)(void *ctx, struct watch_group *g), void *ctx)
{
    while (at && ends_after(at->furthest, key)) {
        tree_match(at->left, key, hit, ctx);
        if (slice_cmp(at->begin, key) > 0) return;
        if (ends_after(at, key)) hit(ctx, at);
        at = at->right;
    }
}

static void tree_each(struct watch_group *at, void (*visit)(void *ctx, struct watch_group *g),
                      void *ctx)
{
    for (; at; at = at->right) {
        tree_each(at->left, visit, ctx);
        visit(ctx, at);
    }
}

/* ---- both ------------------------------------------------------------------------------------ */

static struct watch_group *group_new(struct slice key, struct slice range_end)
{
    struct watch_group *g = mem_alloc(sizeof(*g) + key.len + range_end.len);
    if (!g) return NULL;
    *g = (struct watch_group){
        .single = range_end.len == 0, .first_match = NO_MATCH, .last_match = NO_MATCH};
    g->unbounded = range_end.len == 1 && range_end.data[0] == 0;
    if (key.len) memcpy(g->bytes, key.data, key.len);
    if (range_end.len) memcpy(g->bytes + key.len, range_end.data, range_end.len);
    g->begin = slice_make(g->bytes, key.len);
    g->end = slice_make(g->bytes + key.len, range_end.len);
    list_init(&g->synced);
    list_init(&g->behind);
    list_init(&g->touched);
    return g;
}

struct watch_group *range_index_get(struct range_index *ix, struct slice key,
                                    struct slice range_end)
{
    if (range_end.len == 0) {
        struct watch_group *g = single_find(ix, key);
        if (g) return g;
        if (!single_room(ix) || !(g = group_new(key, range_end))) return NULL;
        struct watch_group **to = bucket_of(ix, key);
        g->next = *to;
        *to = g;
        ix->n_single++;
        return g;
    }
    struct watch_group want = {.begin = key, .end = range_end};
    want.unbounded = range_end.len == 1 && range_end.data[0] == 0;
    for (struct watch_group *at = ix->root; at;) {
        int c = cmp_range(&want, at);
        if (c == 0) return at;
        at = c < 0 ? at->left : at->right;
    }
    struct watch_group *g = group_new(key, range_end);
    if (!g) return NULL;
    g->left = g->right = NULL;
    g->priority = next_random(ix);
    ix->root = tree_insert(ix->root, g);
    ix->n_ranges++;
    return g;
}

void range_index_remove(struct range_index *ix, struct watch_group *g)
{
    if (g->single) {
        single_remove(ix, g);
    } else {
        ix->root = tree_remove(ix->root, g);
        ix->n_ranges--;
    }
    mem_free(g);
}

void range_index_match(struct range_index *ix, struct slice key,
                       void (*hit)(void *ctx, struct watch_group *g), void *ctx)
{
    struct watch_group *g = single_find(ix, key);
    if (g) hit(ctx, g);
    tree_match(ix->root, key, hit, ctx);
}

void range_index_each(struct range_index *ix, void (*visit)(void *ctx, struct watch_group *g),
                      void *ctx)
{
    for (size_t i = 0; i < ix->n_buckets; i++) {
        for (struct watch_group *g = ix->buckets[i]; g; g = g->next) visit(ctx, g);
    }
    tree_each(ix->root, visit, ctx);
}

void range_index_release(struct range_index *ix)
{
    mem_free(ix->buckets);
    *ix = (struct range_index){0};
}
