/* The .kinds files as bytes of the binary. A new file is one line here. */
#include "schemas/kube/kinds_int.h"

#define EMBED(symbol, path)                                                                        \
    __asm__(".section .rodata\n"                                                                   \
            ".balign 8\n" #symbol ":\n"                                                            \
            ".incbin \"schemas/kube/" path "\"\n" #symbol "_end:\n"                                \
            ".byte 0\n"                                                                            \
            ".previous\n");                                                                        \
    extern const uint8_t symbol[], symbol##_end[];

EMBED(kinds_meta_v1, "meta.v1.kinds")
EMBED(kinds_core_v1, "core.v1.kinds")
EMBED(kinds_core_v1_pod, "core.v1.pod.kinds")
EMBED(kinds_core_v1_volume, "core.v1.volume.kinds")
EMBED(kinds_apps_v1, "apps.v1.kinds")
EMBED(kinds_autoscaling_v1, "autoscaling.v1.kinds")
EMBED(kinds_coordination_v1, "coordination.v1.kinds")
EMBED(kinds_discovery_v1, "discovery.v1.kinds")
EMBED(kinds_policy_v1, "policy.v1.kinds")

/* The length is only known when the program is linked, so the table is filled at start. */
struct kinds_source_range {
    const char *name;
    const uint8_t *begin, *end;
};

static const struct kinds_source_range ranges[] = {
    {"meta.v1.kinds", kinds_meta_v1, kinds_meta_v1_end},
    {"core.v1.kinds", kinds_core_v1, kinds_core_v1_end},
    {"core.v1.pod.kinds", kinds_core_v1_pod, kinds_core_v1_pod_end},
    {"core.v1.volume.kinds", kinds_core_v1_volume, kinds_core_v1_volume_end},
    {"apps.v1.kinds", kinds_apps_v1, kinds_apps_v1_end},
    {"autoscaling.v1.kinds", kinds_autoscaling_v1, kinds_autoscaling_v1_end},
    {"coordination.v1.kinds", kinds_coordination_v1, kinds_coordination_v1_end},
    {"discovery.v1.kinds", kinds_discovery_v1, kinds_discovery_v1_end},
    {"policy.v1.kinds", kinds_policy_v1, kinds_policy_v1_end},
};
#define N_RANGES (sizeof(ranges) / sizeof(ranges[0]))

size_t kinds_embedded_count(void)
{
    return N_RANGES;
}

struct kinds_source kinds_embedded(size_t i)
{
    const struct kinds_source_range *r = &ranges[i];
    return (struct kinds_source){r->name, slice_make(r->begin, (size_t)(r->end - r->begin))};
}
