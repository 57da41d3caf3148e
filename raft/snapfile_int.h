#ifndef X_SNAP
#define X_SNAP
#endif
