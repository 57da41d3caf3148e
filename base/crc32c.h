/* CRC-32C (Castagnoli, RFC 3720), by the processor's instruction where it has one. */
#ifndef PINTLE_BASE_CRC32C_H
#define PINTLE_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continue with the checksum so far; start with 0. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
