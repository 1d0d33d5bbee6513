// A linear layer: rows of x times rows of a weight matrix, both along memory, as a checkpoint has them.
//
// Each result is one sum over the depth, in vectors from the first element to the last and then over a vector's lanes by
// halves, whatever else is computed beside it. So a row's result does not depend on what other rows there are, and a
// decode among others, alone, or as the end of a prompt gives the same bits. Of few rows the weights' way through memory
// is what counts: they are read once, in order, and asked for ahead.

#include "berth.h"
#include "math.h"
#include "vec.h"

namespace BERTH_PATH {

namespace {

/// Rows of x, and of weights, that a tile multiplies: as many sums as the registers hold.
constexpr int TILE_X = LANES == 16 ? 4 : 2, TILE_WEIGHTS = 4;

/// Sum up the lanes of LANES vectors, those of the first into lane 0 …; the order of additions is that of `sum_of`.
BERTH_INLINE Floats sums_of(Floats* v) {
    add_pairs<LANES / 2>(v);
    add_pairs<LANES / 4>(v);
    if constexpr (LANES > 4) add_pairs<LANES / 8>(v);
    if constexpr (LANES > 8) add_pairs<LANES / 16>(v);
    return v[0];
}

template <class KV, class Math> class LinearRun {
  public:
    LinearRun(const Linear& call, int64_t low, int64_t high) : call_(call), low_(low), high_(high) {}

    void run() const {
        int64_t row = 0;
        for (; row + TILE_X <= call_.rows; row += TILE_X) rows<TILE_X>(row);
        if constexpr (TILE_X > 2) {
            if (call_.rows - row == 3) return rows<3>(row);
            if (call_.rows - row == 2) return rows<2>(row);
        }
        if (call_.rows - row == 1) rows<1>(row);
    }

  private:
    static constexpr int WIDTH = LANES * static_cast<int>(sizeof(float) / sizeof(typename Math::Weight));  // elements
    const Linear& call_;
    const int64_t low_, high_;

    template <int X> void rows(int64_t row) const {
        int64_t at = low_;
        for (; at + TILE_WEIGHTS <= high_; at += TILE_WEIGHTS) tile<TILE_WEIGHTS, X>(at, row);
        for (; at < high_; at++) tile<1, X>(at, row);
    }

    template <int WEIGHTS, int X> void tile(int64_t first, int64_t row) const {
        constexpr int COUNT = up(WEIGHTS * X, LANES);
        const int64_t depth = call_.depth;
        const KV *weight = static_cast<const KV*>(call_.weight) + first * depth, *x = static_cast<const KV*>(call_.x) + row * call_.x_stride;
        Floats sum[COUNT] = {};
        int64_t at = 0;
        for (; at + WIDTH <= depth; at += WIDTH) step<true, WEIGHTS, X>(weight, x, at, row == 0, sum);
        if (at < depth) step<false, WEIGHTS, X>(weight, x, at, false, sum);
        finish<WEIGHTS, X>(first, row, sum);
    }

    template <bool WHOLE, int WEIGHTS, int X>
    BERTH_INLINE void step(const KV* weight, const KV* x, int64_t at, bool ahead, Floats* sum) const {
        const int64_t depth = call_.depth;
        const int left = static_cast<int>(depth - at);
        Floats own[X];
#pragma GCC unroll 4
        for (int c = 0; c < X; c++) own[c] = Math::template load<WHOLE>(x + c * call_.x_stride + at, left);
#pragma GCC unroll 8
        for (int r = 0; r < WEIGHTS; r++) {
            const KV* from = weight + r * depth + at;
            // The next tile in the order of memory, which is faster than the order of use; once: it stays near.
            if (ahead) __builtin_prefetch(weight + (depth + at) * WEIGHTS + r * WIDTH);
            Floats vector = Math::template load<WHOLE>(from, left);
#pragma GCC unroll 4
            for (int c = 0; c < X; c++) sum[c * WEIGHTS + r] = Math::add(sum[c * WEIGHTS + r], vector, own[c]);
        }
    }

    template <int WEIGHTS, int X> BERTH_INLINE void finish(int64_t first, int64_t row, Floats* sum) const {
        constexpr int COUNT = up(WEIGHTS * X, LANES);
        float found[COUNT];
        for (int at = 0; at < COUNT; at += LANES) write(found + at, sums_of(sum + at));
        if (call_.bias)
            for (int at = 0; at < WEIGHTS * X; at++) found[at] += one(static_cast<const KV*>(call_.bias) + first + at % WEIGHTS);
        KV rounded[COUNT];
        for (int at = 0; at < COUNT; at += LANES) Math::round(rounded + at, read<Floats>(found + at));
        for (int c = 0; c < X; c++)
            memcpy(static_cast<KV*>(call_.out) + (row + c) * call_.columns + first, rounded + c * WEIGHTS, WEIGHTS * sizeof(KV));
    }

    static float one(const float* from) { return *from; }
    static float one(const bf16* from) { return widen(Halves{} + *from)[0]; }
};

}  // namespace

void linear(const Linear& call, int64_t low, int64_t high) {
#if defined(BERTH_PAIRS)
    if (call.half) return LinearRun<bf16, Pairs>(call, low, high).run();
#else
    if (call.half) return LinearRun<bf16, Singles>(call, low, high).run();
#endif
    LinearRun<float, Singles>(call, low, high).run();
}

}  // namespace BERTH_PATH
