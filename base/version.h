/* The version that every program of the binary tells. */
#ifndef PINTLE_BASE_VERSION_H
#define PINTLE_BASE_VERSION_H

#define PINTLE_VERSION "0.1.0"

#endif
