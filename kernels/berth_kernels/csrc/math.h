// Products over rows of the pool or of weights: of float32 one element at a time, of bfloat16 two where the CPU can.

#pragma once

#include "vec.h"

namespace BERTH_PATH {

constexpr int up(int n, int to) { return (n + to - 1) / to * to; }

/// Read a vector of which only `left` elements are there, unless it is WHOLE; zeros stand for the rest.
template <bool WHOLE, class V, class T> BERTH_INLINE V read_some(const T* from, int left) {
    if (WHOLE || left >= static_cast<int>(sizeof(V) / sizeof(T))) return read<V>(from);
    V v{};
    if (left > 0) memcpy(&v, from, left * sizeof(T));
    return v;
}

/// Products of float32, whatever the pool holds.
struct Singles {
    using Weight = float;
    static constexpr int KEYS = 1;  // whose values a word holds
    static int words(int n) { return n; }
    /// Said outright: of a sum of two products the compiler may fuse either, one way here and the other there.
    static Floats add(Floats sum, Floats a, Floats b) {
#if defined(BERTH_PAIRS)
        return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(__AVX2__)
        return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
        return a * b + sum;
#endif
    }
    static void put(Weight* to, Floats v) { write(to, v); }
    static void round(float* to, Floats v) { write(to, v); }
    static void round(bf16* to, Floats v) {
        for (int lane = 0; lane < LANES; lane++) to[lane] = to_bf16(v[lane]);
    }
    template <bool WHOLE> BERTH_INLINE static Floats load(const float* from, int left) { return read_some<WHOLE, Floats>(from, left); }
    template <bool WHOLE> BERTH_INLINE static Floats load(const bf16* from, int left) { return widen(read_some<WHOLE, Halves>(from, left)); }

    /// `COUNT` vectors of the values of a key, from their element `at` on.
    template <bool WHOLE, int COUNT, class KV>
    BERTH_INLINE static void values(const KV* const* rows, int at, int dim, Floats* to) {
        for (int v = 0; v < COUNT; v++) to[v] = load<WHOLE>(rows[0] + at + v * LANES, dim - at - v * LANES);
    }
};

#if defined(BERTH_PAIRS)
/// Products of bfloat16, two neighbours at a time, summed in float32. A word holds the two.
struct Pairs {
    using Weight = bf16;
    static constexpr int KEYS = 2;
    typedef uint16_t Wide __attribute__((vector_size(4 * LANES)));
    static int words(int n) { return (n + 1) / 2; }
    static Floats add(Floats sum, Floats a, Floats b) {
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
    }
    static void put(Weight* to, Floats v) { write(to, _mm512_cvtneps_pbh((__m512)v)); }
    static void round(bf16* to, Floats v) { put(to, v); }
    template <bool WHOLE> BERTH_INLINE static Floats load(const bf16* from, int left) {
        return reinterpret_cast<Floats>(read_some<WHOLE, Wide>(from, left));
    }

    /// Values of two keys, element by element side by side.
    template <bool WHOLE, int COUNT>
    BERTH_INLINE static void values(const bf16* const* rows, int at, int dim, Floats* to) {
        const __m512i low = zip(0), high = zip(LANES);
        for (int v = 0; v < COUNT; v += 2, at += 2 * LANES) {
            auto a = (__m512i)read_some<WHOLE, Wide>(rows[0] + at, dim - at);
            auto b = (__m512i)read_some<WHOLE, Wide>(rows[1] + at, dim - at);
            to[v] = (Floats)_mm512_permutex2var_epi16(a, low, b);
            if (v + 1 < COUNT) to[v + 1] = (Floats)_mm512_permutex2var_epi16(a, high, b);
        }
    }

    /// The order of a[from], b[from], a[from + 1] …
    static __m512i zip(int from) {
        Ints pairs = counting() + from;
        return (__m512i)(pairs | ((pairs + 2 * LANES) << 16));
    }
};
#endif

}  // namespace BERTH_PATH
