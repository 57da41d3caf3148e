/* `pintle ctl snapshot restore FILE` and `status FILE`: offline work on the files that `snapshot save` wrote
 * (docs/formats-snapshot.md). A damaged file is refused with the place of the damage before anything is written. */
#ifndef PINTLE_API_RESTORE_H
#define PINTLE_API_RESTORE_H

int cmd_snapshot_restore(int argc, char **argv);
int cmd_snapshot_status(int argc, char **argv);

#endif
