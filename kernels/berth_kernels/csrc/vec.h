// Vectors of one instruction set, written once: what the compiler's vector types cannot say is behind BERTH_PAIRS.
//
// Included by tile.cpp alone, which is compiled once an instruction set. Of the standard library only types are used:
// of an inline function the linker keeps one copy, perhaps one with instructions that this CPU lacks. Everything of ours
// lives in a namespace of its instruction set.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512BF16__)
#define BERTH_PAIRS 1
#endif

// What is left out of line costs more in spilled vectors than it does.
#define BERTH_INLINE inline __attribute__((always_inline))

namespace BERTH_PATH {

#if defined(BERTH_PAIRS)
constexpr int LANES = 16, BLOCK_ROWS = 6, BLOCK_VECTORS = 4, NARROW_ROWS = 8;
#elif defined(__AVX2__)
constexpr int LANES = 8, BLOCK_ROWS = 6, BLOCK_VECTORS = 2, NARROW_ROWS = 4;
#else
constexpr int LANES = 4, BLOCK_ROWS = 4, BLOCK_VECTORS = 2, NARROW_ROWS = 4;
#endif
// BLOCK_ROWS × BLOCK_VECTORS sums, a row of operands and a broadcast fill the registers that there are.

using bf16 = uint16_t;
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

template <class V> inline V read(const void* from) {
    V v;
    memcpy(&v, from, sizeof v);
    return v;
}

template <class V> inline void write(void* to, V v) { memcpy(to, &v, sizeof v); }

inline Floats as_floats(Ints v) { return reinterpret_cast<Floats>(v); }
inline Ints as_ints(Floats v) { return reinterpret_cast<Ints>(v); }

/// All lanes the 32-bit word at `from`, whatever it holds.
inline Floats spread_word(const float* from) {
    int32_t word;
    memcpy(&word, from, sizeof word);
    return as_floats(Ints{} + word);
}

inline Floats spread(float x) { return spread_word(&x); }

inline Floats widen(Halves v) { return as_floats(__builtin_convertvector(v, Ints) << 16); }

inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

/// Whole numbers 0, 1, 2 …
inline Ints counting() {
    Ints v{};
    for (int lane = 0; lane < LANES; lane++) v[lane] = lane;
    return v;
}

inline float sum_of(Floats v) {
    float part[LANES];
    memcpy(part, &v, sizeof part);
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) part[lane] += part[lane + half];
    return part[0];
}

inline float largest_of(Floats v) {
    float part[LANES];
    memcpy(part, &v, sizeof part);
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) part[lane] = part[lane] > part[lane + half] ? part[lane] : part[lane + half];
    return part[0];
}

/// 2^x for x <= 0, relative error 1e-7; exactly 0 below 2^-126. NaN stays NaN.
inline Floats exp2_of(Floats x) {
    const Floats magic = spread(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number, held in the low bits
    Floats shifted = x + magic;
    Floats part = x - (shifted - magic);
    // Chebyshev fit of 2^part on [-0.5, 0.5] by relative error: 1.9e-9 before rounding.
    Floats power = spread(1.53375774971e-4f);
    power = power * part + spread(1.33998598903e-3f);
    power = power * part + spread(9.61851980537e-3f);
    power = power * part + spread(5.55032901466e-2f);
    power = power * part + spread(2.40226462483e-1f);
    power = power * part + spread(6.93147182465e-1f);
    power = power * part + spread(1.0f);
    Floats scaled = as_floats(as_ints(power) + (as_ints(shifted) << 23));
    return x < spread(-126.0f) ? Floats{} : scaled;
}

inline float exp2_of(float x) { return exp2_of(spread(x))[0]; }

inline bf16 to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fc0;
    return static_cast<bf16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Exchanges blocks of DISTANCE lanes between two rows; done for 1, 2, 4 … it transposes LANES rows.
template <int DISTANCE, int... LANE> BERTH_INLINE void exchange(Floats& a, Floats& b, std::integer_sequence<int, LANE...>) {
#if defined(__clang__)
    Floats low = __builtin_shufflevector(a, b, (LANE & DISTANCE ? LANES + LANE - DISTANCE : LANE)...);
    Floats high = __builtin_shufflevector(a, b, (LANE & DISTANCE ? LANES + LANE : LANE + DISTANCE)...);
#else
    Floats low = __builtin_shuffle(a, b, Ints{(LANE & DISTANCE ? LANES + LANE - DISTANCE : LANE)...});
    Floats high = __builtin_shuffle(a, b, Ints{(LANE & DISTANCE ? LANES + LANE : LANE + DISTANCE)...});
#endif
    a = low, b = high;
}

template <int DISTANCE> BERTH_INLINE void exchange_all(Floats* rows) {
#pragma GCC unroll 16
    for (int row = 0; row < LANES; row++)
        if (!(row & DISTANCE))
            exchange<DISTANCE>(rows[row], rows[row + DISTANCE], std::make_integer_sequence<int, LANES>{});
}

/// Add up lanes DISTANCE apart: those of `rows[i]` where a lane's number lacks that bit, those of its partner where not.
template <int DISTANCE> BERTH_INLINE void add_pairs(Floats* rows) {
#pragma GCC unroll 8
    for (int row = 0; row < DISTANCE; row++) {
        exchange<DISTANCE>(rows[row], rows[row + DISTANCE], std::make_integer_sequence<int, LANES>{});
        rows[row] += rows[row + DISTANCE];
    }
}

/// Transpose LANES rows of LANES words in place.
BERTH_INLINE void transpose(Floats* rows) {
    exchange_all<1>(rows);
    exchange_all<2>(rows);
    if constexpr (LANES > 4) exchange_all<4>(rows);
    if constexpr (LANES > 8) exchange_all<8>(rows);
}

}  // namespace BERTH_PATH
