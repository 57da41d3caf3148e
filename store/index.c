/* Nodes have room for 64 children. A leaf's memory follows its fill in steps of 16 entries, which
 * keeps trees that grow in random order above 80% full. A separator is the shortest key that
 * divides its two sides.
 *
 * Fences: the keys under a node lie in [low, high), bounds that its ancestors' separators give; all
 * keys in there share the bounds' common prefix, so that a search need not compare it. Whatever
 * widens a node's fences (merges, removed neighbours) must set its prefix anew: that is set_fences.
 */
#include "store/index_int.h"

#include "base/check.h"
#include "base/mem.h"

enum { LEAF_STEP = 16, MERGE_BELOW = 16, MERGE_MAX = 48, BUILD_FILL = 60 };

struct index_leaf {
    uint16_t n, cap;
    uint32_t prefix;        /* bytes that all keys between the fences share */
    uint64_t dead;          /* bit i: entry i is a tombstone */
    struct record *items[]; /* cap of them, then cap heads */
};

struct separator {
    uint32_t len;
    uint8_t data[];
};

struct index_inner {
    uint16_t n; /* children; one separator less */
    uint32_t prefix;
    uint32_t heads[INDEX_INNER_MAX];
    uint32_t live[INDEX_INNER_MAX];
    void *child[INDEX_INNER_MAX];
    struct separator *sep[INDEX_INNER_MAX]; /* sep[i] <= all keys of child[i + 1] */
};

/* Bounds; NULL = none on that side. */
struct fences {
    const struct separator *low, *high;
};

/* ---- keys ----------------------------------------------------------------------------------- */

static inline uint32_t head_of(struct slice key, uint32_t prefix)
{
    if (key.len >= (size_t)prefix + 4) {
        uint32_t v;
        memcpy(&v, key.data + prefix, 4);
        return __builtin_bswap32(v);
    }
    uint32_t v = 0;
    for (size_t i = prefix; i < (size_t)prefix + 4; i++)
        v = v << 8 | (i < key.len ? key.data[i] : 0u);
    return v;
}

static inline struct slice sep_key(const struct separator *s)
{
    return (struct slice){s->data, s->len};
}

static size_t common_prefix(struct slice a, struct slice b)
{
    size_t n = a.len < b.len ? a.len : b.len, i = 0;
    while (i < n && a.data[i] == b.data[i]) i++;
    return i;
}

static uint32_t fence_prefix(struct fences f)
{
    return f.low && f.high ? (uint32_t)common_prefix(sep_key(f.low), sep_key(f.high)) : 0;
}

/* Compares behind the prefix that both are known to share. */
static inline int cmp_behind(struct slice a, struct slice b, uint32_t prefix)
{
    return slice_cmp(slice_sub(a, prefix, SIZE_MAX), slice_sub(b, prefix, SIZE_MAX));
}

/* The run [*lo, *hi) of heads equal to `h`: everything before is smaller, behind is larger. */
static inline void head_run(const uint32_t *heads, unsigned n, uint32_t h, unsigned *lo,
                            unsigned *hi)
{
    unsigned from = 0, len = n;
    while (len > 0) {
        unsigned half = len / 2;
        bool below = heads[from + half] < h;
        from = below ? from + half + 1 : from;
        len = below ? len - half - 1 : half;
    }
    *lo = from;
    while (from < n && heads[from] == h && from < *lo + 4) from++;
    if (from == *lo + 4) { /* many ties: the rest by halves too */
        len = n - from;
        while (len > 0) {
            unsigned half = len / 2;
            bool equal = heads[from + half] == h;
            from = equal ? from + half + 1 : from;
            len = equal ? len - half - 1 : half;
        }
    }
    *hi = from;
}

/* ---- leaves --------------------------------------------------------------------------------- */

static inline uint32_t *leaf_heads(struct index_leaf *l)
{
    return (uint32_t *)(void *)(l->items + l->cap);
}

static size_t leaf_bytes(unsigned cap)
{
    return sizeof(struct index_leaf) + cap * (sizeof(struct record *) + sizeof(uint32_t));
}

static unsigned leaf_cap(unsigned n)
{
    if (n <= 4) return 4;
    return (n + LEAF_STEP - 1) / LEAF_STEP * LEAF_STEP;
}

static struct index_leaf *leaf_new(struct index *ix, unsigned n)
{
    unsigned cap = leaf_cap(n);
    struct index_leaf *l = mem_must_alloc(leaf_bytes(cap));
    *l = (struct index_leaf){.cap = (uint16_t)cap};
    ix->bytes += leaf_bytes(cap);
    return l;
}

static void leaf_free(struct index *ix, struct index_leaf *l)
{
    ix->bytes -= leaf_bytes(l->cap);
    mem_free(l);
}

/* Another size of the same leaf; the parent's pointer is the caller's to change. */
static struct index_leaf *leaf_resize(struct index *ix, struct index_leaf *l, unsigned n)
{
    unsigned cap = leaf_cap(n), old = l->cap;
    if (cap == old) return l;
    ix->bytes += leaf_bytes(cap) - leaf_bytes(old);
    if (cap < old) memmove(l->items + cap, leaf_heads(l), l->n * sizeof(uint32_t));
    l = mem_must_realloc(l, leaf_bytes(cap));
    if (cap > old) memmove(l->items + cap, l->items + old, l->n * sizeof(uint32_t));
    l->cap = (uint16_t)cap;
    return l;
}

static void leaf_set_prefix(struct index_leaf *l, uint32_t prefix)
{
    uint32_t *heads = leaf_heads(l);
    l->prefix = prefix;
    for (unsigned i = 0; i < l->n; i++) heads[i] = head_of(record_key(l->items[i]), prefix);
}

static inline uint64_t below(unsigned bit)
{
    return bit >= 64 ? UINT64_MAX : ((uint64_t)1 << bit) - 1;
}

static void leaf_insert(struct index_leaf *l, unsigned pos, struct record *r)
{
    uint32_t *heads = leaf_heads(l);
    memmove(l->items + pos + 1, l->items + pos, (l->n - pos) * sizeof(l->items[0]));
    memmove(heads + pos + 1, heads + pos, (l->n - pos) * sizeof(heads[0]));
    l->items[pos] = r;
    heads[pos] = head_of(record_key(r), l->prefix);
    uint64_t high = l->dead & ~below(pos);
    l->dead = (l->dead & below(pos)) | high << 1 | (uint64_t)r->tombstone << pos;
    l->n++;
}

static void leaf_remove(struct index_leaf *l, unsigned pos)
{
    uint32_t *heads = leaf_heads(l);
    l->n--;
    memmove(l->items + pos, l->items + pos + 1, (l->n - pos) * sizeof(l->items[0]));
    memmove(heads + pos, heads + pos + 1, (l->n - pos) * sizeof(heads[0]));
    l->dead = (l->dead & below(pos)) | (l->dead >> 1 & ~below(pos));
}

static uint32_t leaf_live(const struct index_leaf *l)
{
    return l->n - (uint32_t)__builtin_popcountll(l->dead);
}

static unsigned leaf_search(struct index_leaf *l, struct slice key, bool *ret_found)
{
    unsigned lo, hi;
    head_run(leaf_heads(l), l->n, head_of(key, l->prefix), &lo, &hi);
    *ret_found = false;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        int c = cmp_behind(record_key(l->items[mid]), key, l->prefix);
        if (c == 0) {
            *ret_found = true;
            return mid;
        }
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* ---- inner nodes ---------------------------------------------------------------------------- */

static struct index_inner *inner_new(struct index *ix)
{
    struct index_inner *in = mem_must_alloc(sizeof(*in));
    in->n = 0;
    in->prefix = 0;
    ix->bytes += sizeof(*in);
    return in;
}

static void inner_free(struct index *ix, struct index_inner *in)
{
    ix->bytes -= sizeof(*in);
    mem_free(in);
}

static struct separator *sep_between(struct index *ix, struct slice left, struct slice right)
{
    size_t len = common_prefix(left, right) + 1;
    CHECK(len <= right.len);
    struct separator *s = mem_must_alloc(sizeof(*s) + len);
    s->len = (uint32_t)len;
    memcpy(s->data, right.data, len);
    ix->bytes += sizeof(*s) + len;
    return s;
}

static void sep_free(struct index *ix, struct separator *s)
{
    ix->bytes -= sizeof(*s) + s->len;
    mem_free(s);
}

static void inner_set_prefix(struct index_inner *in, uint32_t prefix)
{
    in->prefix = prefix;
    for (unsigned i = 0; i + 1 < in->n; i++) in->heads[i] = head_of(sep_key(in->sep[i]), prefix);
}

static uint32_t inner_live(const struct index_inner *in)
{
    uint32_t live = 0;
    for (unsigned i = 0; i < in->n; i++) live += in->live[i];
    return live;
}

/* The child whose range holds `key`. */
static unsigned inner_search(struct index_inner *in, struct slice key)
{
    unsigned lo, hi;
    head_run(in->heads, in->n - 1u, head_of(key, in->prefix), &lo, &hi);
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (cmp_behind(sep_key(in->sep[mid]), key, in->prefix) <= 0) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* The child and the separator before it. */
static void inner_insert(struct index_inner *in, unsigned pos, struct separator *s, void *child,
                         uint32_t live)
{
    memmove(in->child + pos + 1, in->child + pos, (in->n - pos) * sizeof(in->child[0]));
    memmove(in->live + pos + 1, in->live + pos, (in->n - pos) * sizeof(in->live[0]));
    memmove(in->sep + pos, in->sep + pos - 1, (in->n - pos) * sizeof(in->sep[0]));
    memmove(in->heads + pos, in->heads + pos - 1, (in->n - pos) * sizeof(in->heads[0]));
    in->child[pos] = child;
    in->live[pos] = live;
    in->sep[pos - 1] = s;
    in->heads[pos - 1] = head_of(sep_key(s), in->prefix);
    in->n++;
}

/* Takes the child out with the separator before it (behind it, for the first); frees the separator.
 */
static void inner_remove(struct index *ix, struct index_inner *in, unsigned pos)
{
    unsigned s = pos ? pos - 1 : 0;
    if (in->n > 1) {
        sep_free(ix, in->sep[s]);
        memmove(in->sep + s, in->sep + s + 1, (in->n - 2 - s) * sizeof(in->sep[0]));
        memmove(in->heads + s, in->heads + s + 1, (in->n - 2 - s) * sizeof(in->heads[0]));
    }
    in->n--;
    memmove(in->child + pos, in->child + pos + 1, (in->n - pos) * sizeof(in->child[0]));
    memmove(in->live + pos, in->live + pos + 1, (in->n - pos) * sizeof(in->live[0]));
}

/* ---- fences --------------------------------------------------------------------------------- */

/* Of the node at `level` of the path (the leaf is at level `height`). */
static struct fences path_fences(const struct index_path *path, unsigned level)
{
    struct fences f = {0};
    for (unsigned i = level; i-- > 0 && !(f.low && f.high);) {
        const struct index_inner *in = path->inner[i];
        unsigned at = path->at[i];
        if (!f.low && at > 0) f.low = in->sep[at - 1];
        if (!f.high && at + 1u < in->n) f.high = in->sep[at];
    }
    return f;
}

static struct fences child_fences(const struct index_inner *in, unsigned i, struct fences f)
{
    return (struct fences){i > 0 ? in->sep[i - 1] : f.low, i + 1u < in->n ? in->sep[i] : f.high};
}

/* Gives a node new fences. Only its outermost descendants see a difference: `edges` says on which
 * sides
 * (-1 left, 1 right, 0 everywhere: a new tree). */
static void set_fences(void *node, unsigned height, struct fences f, int edge)
{
    if (height == 0) {
        leaf_set_prefix(node, fence_prefix(f));
        return;
    }
    struct index_inner *in = node;
    inner_set_prefix(in, fence_prefix(f));
    unsigned from = edge > 0 ? in->n - 1u : 0, to = edge < 0 ? 1 : in->n;
    for (unsigned i = from; i < to; i++)
        set_fences(in->child[i], height - 1, child_fences(in, i, f), edge);
}

/* ---- finding -------------------------------------------------------------------------------- */

static void descend(const struct index *ix, struct slice key, struct index_path *path)
{
    void *node = ix->root;
    for (unsigned level = 0; level < ix->height; level++) {
        struct index_inner *in = node;
        unsigned i = inner_search(in, key);
        path->inner[level] = in;
        path->at[level] = (uint16_t)i;
        node = in->child[i];
    }
    path->leaf = node;
    path->found = false;
    path->pos = node ? leaf_search(node, key, &path->found) : 0;
}

struct record *index_find(const struct index *ix, struct slice key, struct index_path *path)
{
    descend(ix, key, path);
    return path->found ? path->leaf->items[path->pos] : NULL;
}

struct record *index_get(const struct index *ix, struct slice key)
{
    struct index_path path;
    return index_find(ix, key, &path);
}

/* From the end of a leaf to the start of the next one. */
static struct record *settle(const struct index *ix, struct index_path *path)
{
    if (!path->leaf) return NULL;
    if (path->pos < path->leaf->n) return path->leaf->items[path->pos];
    unsigned level = ix->height;
    while (level > 0 && path->at[level - 1] + 1u >= path->inner[level - 1]->n) level--;
    if (level == 0) return NULL;
    void *node = path->inner[level - 1]->child[++path->at[level - 1]];
    for (; level < ix->height; level++) {
        path->inner[level] = node;
        path->at[level] = 0;
        node = path->inner[level]->child[0];
    }
    path->leaf = node;
    path->pos = 0;
    return path->leaf->items[0];
}

struct record *index_seek(const struct index *ix, struct slice key, struct index_path *path)
{
    descend(ix, key, path);
    return settle(ix, path);
}

struct record *index_next(const struct index *ix, struct index_path *path)
{
    path->pos++;
    return settle(ix, path);
}

size_t index_run(const struct index_path *path, struct record *const **ret)
{
    if (!path->leaf) return 0;
    *ret = path->leaf->items + path->pos;
    return path->leaf->n - path->pos;
}

struct record *index_skip(const struct index *ix, struct index_path *path, size_t n)
{
    path->pos += (unsigned)n;
    return settle(ix, path);
}

size_t index_rank(const struct index *ix, struct slice key)
{
    struct index_path path;
    descend(ix, key, &path);
    if (!path.leaf) return 0;
    size_t rank = path.pos - (size_t)__builtin_popcountll(path.leaf->dead & below(path.pos));
    for (unsigned level = 0; level < ix->height; level++)
        for (unsigned i = 0; i < path.at[level]; i++) rank += path.inner[level]->live[i];
    return rank;
}

/* ---- storing -------------------------------------------------------------------------------- */

static void add_live(struct index *ix, struct index_path *path, int delta)
{
    ix->live = (size_t)((ptrdiff_t)ix->live + delta);
    for (unsigned level = 0; level < ix->height; level++) {
        uint32_t *live = &path->inner[level]->live[path->at[level]];
        *live = (uint32_t)((int64_t)*live + delta);
    }
}

static void set_child(struct index *ix, struct index_path *path, unsigned level, void *node)
{
    if (level == 0) ix->root = node;
    else path->inner[level - 1]->child[path->at[level - 1]] = node;
}

static void grow_root(struct index *ix, struct separator *s, void *right, uint32_t live)
{
    CHECK(ix->height + 1 < INDEX_HEIGHT_MAX);
    struct index_inner *root = inner_new(ix);
    root->n = 1;
    root->child[0] = ix->root;
    root->live[0] = (uint32_t)ix->live - live;
    inner_insert(root, 1, s, right, live);
    ix->root = root;
    ix->height++;
}

/* Adds `right`, split off from the path's child at `level`, whose keys are not below `s`. */
static void insert_child(struct index *ix, struct index_path *path, unsigned level,
                         struct separator *s, void *right, uint32_t live)
{
    if (level == 0) {
        grow_root(ix, s, right, live);
        return;
    }
    struct index_inner *in = path->inner[--level];
    unsigned at = path->at[level];
    in->live[at] -= live;
    if (in->n < INDEX_INNER_MAX) {
        inner_insert(in, at + 1, s, right, live);
        return;
    }
    unsigned keep =
        at + 1u == in->n ? in->n - 1u : in->n / 2u; /* growth at the end leaves full nodes */
    struct index_inner *other = inner_new(ix);
    struct separator *up = in->sep[keep - 1];
    other->n = (uint16_t)(in->n - keep);
    memcpy(other->child, in->child + keep, other->n * sizeof(other->child[0]));
    memcpy(other->live, in->live + keep, other->n * sizeof(other->live[0]));
    memcpy(other->sep, in->sep + keep, (other->n - 1u) * sizeof(other->sep[0]));
    in->n = (uint16_t)keep;
    struct fences f = path_fences(path, level);
    inner_set_prefix(in, fence_prefix((struct fences){f.low, up}));
    inner_set_prefix(other, fence_prefix((struct fences){up, f.high}));
    if (at < keep) inner_insert(in, at + 1, s, right, live);
    else inner_insert(other, at + 1 - keep, s, right, live);
    insert_child(ix, path, level, up, other, inner_live(other));
}

static void split_leaf(struct index *ix, struct index_path *path, struct record *r)
{
    struct index_leaf *l = path->leaf;
    unsigned pos = path->pos, n = l->n;
    unsigned keep = pos == n || pos == 0 ? pos : n / 2u; /* growth at an end leaves full leaves */
    bool to_left = keep < n && pos <= keep;
    /* At an end it goes on there: room at once, for the steps in between would leave holes in the
     * heap. */
    struct index_leaf *right = leaf_new(ix, keep == n ? INDEX_LEAF_MAX : n - keep + !to_left);
    right->n = (uint16_t)(n - keep);
    memcpy(right->items, l->items + keep, right->n * sizeof(right->items[0]));
    right->dead = keep >= 64 ? 0 : l->dead >> keep;
    l->n = (uint16_t)keep;
    l->dead &= below(keep);
    if (keep > 0 && keep < n) l = leaf_resize(ix, l, keep + to_left);
    if (to_left) leaf_insert(l, pos, r);
    else leaf_insert(right, pos - keep, r);
    set_child(ix, path, ix->height, l);
    struct separator *s =
        sep_between(ix, record_key(l->items[l->n - 1]), record_key(right->items[0]));
    struct fences f = path_fences(path, ix->height);
    leaf_set_prefix(l, fence_prefix((struct fences){f.low, s}));
    leaf_set_prefix(right, fence_prefix((struct fences){s, f.high}));
    insert_child(ix, path, ix->height, s, right, leaf_live(right));
}

void index_store(struct index *ix, struct index_path *path, struct record *r)
{
    struct index_leaf *l = path->leaf;
    if (path->found) {
        uint64_t bit = (uint64_t)1 << path->pos;
        int delta = (l->dead & bit ? 1 : 0) - (r->tombstone ? 1 : 0);
        l->items[path->pos] = r;
        l->dead = (l->dead & ~bit) | (uint64_t)r->tombstone << path->pos;
        if (delta) add_live(ix, path, delta);
        return;
    }
    ix->entries++;
    if (!r->tombstone) add_live(ix, path, 1);
    if (!l) ix->root = l = leaf_new(ix, 1);
    if (l->n == INDEX_LEAF_MAX) {
        split_leaf(ix, path, r);
        return;
    }
    if (l->n == l->cap) {
        l = leaf_resize(ix, l, l->n + 1u);
        set_child(ix, path, ix->height, l);
    }
    leaf_insert(l, path->pos, r);
    path->leaf = l;
    path->found = true;
}

/* ---- erasing -------------------------------------------------------------------------------- */

static void merge_leaves(struct index *ix, struct index_inner *in, unsigned i, struct fences f)
{
    struct index_leaf *a = in->child[i], *b = in->child[i + 1];
    a = leaf_resize(ix, a, (unsigned)a->n + b->n);
    memcpy(a->items + a->n, b->items, b->n * sizeof(b->items[0]));
    if (b->n) a->dead |= b->dead << a->n;
    a->n = (uint16_t)(a->n + b->n);
    leaf_free(ix, b);
    in->child[i] = a;
    in->live[i] += in->live[i + 1];
    inner_remove(ix, in, i + 1);
    leaf_set_prefix(a, fence_prefix(child_fences(in, i, f)));
}

static void merge_inners(struct index *ix, struct index_inner *in, unsigned i, struct fences f)
{
    struct index_inner *a = in->child[i], *b = in->child[i + 1];
    struct separator *middle = in->sep[i];
    memcpy(a->child + a->n, b->child, b->n * sizeof(b->child[0]));
    memcpy(a->live + a->n, b->live, b->n * sizeof(b->live[0]));
    memcpy(a->sep + a->n, b->sep, (b->n - 1u) * sizeof(b->sep[0]));
    a->sep[a->n - 1] = mem_must_alloc(sizeof(*middle) + middle->len);
    memcpy(a->sep[a->n - 1], middle, sizeof(*middle) + middle->len);
    ix->bytes += sizeof(*middle) + middle->len;
    a->n = (uint16_t)(a->n + b->n);
    inner_free(ix, b);
    in->live[i] += in->live[i + 1];
    inner_remove(ix, in, i + 1);
    inner_set_prefix(a, fence_prefix(child_fences(in, i, f)));
}

static unsigned fill(const void *node, bool leaf)
{
    return leaf ? ((const struct index_leaf *)node)->n : ((const struct index_inner *)node)->n;
}

/* After the path's child at `level` lost something: joins it with a neighbour when both are small,
 * removes it when it is empty, and so on upwards. */
static void shrink(struct index *ix, struct index_path *path, unsigned level)
{
    if (level == 0) {
        while (ix->height > 0 && ((struct index_inner *)ix->root)->n == 1) {
            struct index_inner *root = ix->root;
            ix->root = root->child[0];
            ix->height--;
            inner_free(ix, root);
        }
        return;
    }
    struct index_inner *in = path->inner[level - 1];
    unsigned i = path->at[level - 1], below_it = ix->height - level;
    bool leaf = below_it == 0;
    unsigned n = fill(in->child[i], leaf);
    if (n >= MERGE_BELOW) return;
    struct fences f = path_fences(path, level - 1);
    if (n == 0) {
        if (leaf) leaf_free(ix, in->child[i]);
        else inner_free(ix, in->child[i]);
        inner_remove(ix, in, i);
        if (in->n > 0) { /* the neighbour now covers the removed one's range */
            unsigned j = i > 0 ? i - 1 : 0;
            set_fences(in->child[j], below_it, child_fences(in, j, f), i > 0 ? 1 : -1);
        }
    } else if (i + 1u < in->n && n + fill(in->child[i + 1], leaf) <= MERGE_MAX) {
        (leaf ? merge_leaves : merge_inners)(ix, in, i, f);
    } else if (i > 0 && n + fill(in->child[i - 1], leaf) <= MERGE_MAX) {
        (leaf ? merge_leaves : merge_inners)(ix, in, i - 1, f);
    } else {
        return;
    }
    shrink(ix, path, level - 1);
}

void index_erase(struct index *ix, struct index_path *path)
{
    CHECK(path->found);
    struct index_leaf *l = path->leaf;
    ix->entries--;
    if (!(l->dead >> path->pos & 1)) add_live(ix, path, -1);
    leaf_remove(l, path->pos);
    path->found = false;
    if (l->n > 0 && l->n + 2u * LEAF_STEP <= l->cap) {
        path->leaf = l = leaf_resize(ix, l, l->n);
        set_child(ix, path, ix->height, l);
    }
    if (l->n == 0 && ix->height == 0) {
        leaf_free(ix, l);
        ix->root = NULL;
        return;
    }
    shrink(ix, path, ix->height);
}

/* ---- whole trees ---------------------------------------------------------------------------- */

static void free_node(struct index *ix, void *node, unsigned height)
{
    if (!node) return;
    if (height == 0) {
        leaf_free(ix, node);
        return;
    }
    struct index_inner *in = node;
    for (unsigned i = 0; i < in->n; i++) {
        if (i > 0) sep_free(ix, in->sep[i - 1]);
        free_node(ix, in->child[i], height - 1);
    }
    inner_free(ix, in);
}

void index_release(struct index *ix)
{
    free_node(ix, ix->root, ix->height);
    *ix = (struct index){0};
}

/* A level under construction: nodes in order, and the separator before each but the first. */
struct level {
    void **nodes;
    struct separator **seps;
    uint32_t *live;
    size_t n;
};

static struct level level_new(size_t n)
{
    return (struct level){mem_must_alloc(n * sizeof(void *)), mem_must_alloc(n * sizeof(void *)),
                          mem_must_alloc(n * sizeof(uint32_t)), n};
}

static void level_free(struct level *l)
{
    mem_free(l->nodes);
    mem_free(l->seps);
    mem_free(l->live);
}

static struct level build_leaves(struct index *ix, struct record **records, size_t n)
{
    struct level out = level_new((n + BUILD_FILL - 1) / BUILD_FILL);
    for (size_t i = 0; i < out.n; i++) {
        size_t from = i * BUILD_FILL, len = n - from < BUILD_FILL ? n - from : BUILD_FILL;
        struct index_leaf *l = leaf_new(ix, (unsigned)len);
        l->n = (uint16_t)len;
        memcpy(l->items, records + from, len * sizeof(l->items[0]));
        for (size_t k = 0; k < len; k++) l->dead |= (uint64_t)records[from + k]->tombstone << k;
        out.nodes[i] = l;
        out.live[i] = leaf_live(l);
        out.seps[i] =
            i ? sep_between(ix, record_key(records[from - 1]), record_key(records[from])) : NULL;
    }
    return out;
}

static struct level build_inners(struct index *ix, struct level *below_it)
{
    struct level out = level_new((below_it->n + BUILD_FILL - 1) / BUILD_FILL);
    for (size_t i = 0; i < out.n; i++) {
        size_t from = i * BUILD_FILL, left = below_it->n - from;
        struct index_inner *in = inner_new(ix);
        in->n = (uint16_t)(left < BUILD_FILL ? left : BUILD_FILL);
        memcpy(in->child, below_it->nodes + from, in->n * sizeof(in->child[0]));
        memcpy(in->live, below_it->live + from, in->n * sizeof(in->live[0]));
        memcpy(in->sep, below_it->seps + from + 1, (in->n - 1u) * sizeof(in->sep[0]));
        out.nodes[i] = in;
        out.live[i] = inner_live(in);
        out.seps[i] = below_it->seps[from];
    }
    return out;
}

void index_build(struct index *ix, struct record **records, size_t n)
{
    CHECK(!ix->root);
    if (n == 0) return;
    struct level l = build_leaves(ix, records, n);
    while (l.n > 1) {
        struct level up = build_inners(ix, &l);
        level_free(&l);
        l = up;
        ix->height++;
    }
    ix->root = l.nodes[0];
    ix->entries = n;
    ix->live = l.live[0];
    level_free(&l);
    set_fences(ix->root, ix->height, (struct fences){0}, 0);
}

static uint32_t check_node(const void *node, unsigned height, struct fences f, size_t *entries)
{
    if (height == 0) {
        struct index_leaf *l = (struct index_leaf *)node;
        CHECK(l->n > 0 && l->n <= l->cap && l->prefix == fence_prefix(f));
        CHECK((l->dead & ~below(l->n)) == 0);
        for (unsigned i = 0; i < l->n; i++) {
            struct slice key = record_key(l->items[i]);
            CHECK(i == 0 || slice_cmp(record_key(l->items[i - 1]), key) < 0);
            CHECK(!f.low || slice_cmp(sep_key(f.low), key) <= 0);
            CHECK(!f.high || slice_cmp(key, sep_key(f.high)) < 0);
            CHECK(leaf_heads(l)[i] == head_of(key, l->prefix));
            CHECK((l->dead >> i & 1) == l->items[i]->tombstone);
        }
        *entries += l->n;
        return leaf_live(l);
    }
    const struct index_inner *in = node;
    CHECK(in->n > 0 && in->n <= INDEX_INNER_MAX && in->prefix == fence_prefix(f));
    for (unsigned i = 0; i < in->n; i++) {
        if (i + 1u < in->n) CHECK(in->heads[i] == head_of(sep_key(in->sep[i]), in->prefix));
        CHECK(check_node(in->child[i], height - 1, child_fences(in, i, f), entries) == in->live[i]);
    }
    return inner_live(in);
}

void index_check(const struct index *ix)
{
    size_t entries = 0;
    if (ix->root) CHECK(check_node(ix->root, ix->height, (struct fences){0}, &entries) == ix->live);
    CHECK(entries == ix->entries);
}
