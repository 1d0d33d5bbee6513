/* noise.py in C, for whoever samples elsewhere: the same seed, position and id give the same bits. */
#ifndef BERTH_NOISE_H
#define BERTH_NOISE_H

#include <math.h>
#include <stdint.h>

static inline uint64_t berth_mix64(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static inline uint32_t berth_mix32(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x21F0AAADu;
    x = (x ^ (x >> 15)) * 0x735A2D97u;
    return x ^ (x >> 15);
}

/* The key of a draw: its low half is mixed with the id first, its high half second. */
static inline uint64_t berth_row_key(uint64_t seed, uint64_t position) {
    return berth_mix64(berth_mix64(seed) ^ position);
}

static inline uint32_t berth_bits(uint64_t row_key, uint32_t id) {
    return berth_mix32(berth_mix32(id ^ (uint32_t)row_key) ^ (uint32_t)(row_key >> 32));
}

/* Standard Gumbel noise: the drawn token is the argmax of (logit / temperature + noise) over what the filters leave. */
static inline float berth_gumbel(uint32_t bits) {
    float uniform = ((float)(bits >> 9) + 0.5f) * 0x1p-23f;
    return -logf(-logf(uniform));
}

#endif
