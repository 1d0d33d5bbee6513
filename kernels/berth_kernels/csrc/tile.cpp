// Attention of a tile of queries over chunks of keys: flash attention (Dao et al. 2022), one key/value head at a time.
//
// The query heads of a group are rows of one matrix, so a decode is a small prefill. A block's keys are transposed and
// its values laid out once for all rows; both products are then the same small matrix product. Each chunk of keys has a
// state of its own (a row's maximum, sum, and weighted values), and states are added up in the order of the chunks,
// whether one thread made them or many. No row's arithmetic depends on what other rows there are. Scores are in units
// of log 2.

#include "berth.h"
#include "vec.h"

namespace BERTH_PATH {

constexpr float LOG2_E = 1.44269504089f;

inline int up(int n, int to) { return (n + to - 1) / to * to; }
inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }

template <class V, class T> inline V read_up_to(const T* from, int left) {
    if (left >= static_cast<int>(sizeof(V) / sizeof(T))) return read<V>(from);
    V v{};
    memcpy(&v, from, left * sizeof(T));
    return v;
}

/// Products of float32, whatever the pool holds.
struct Singles {
    using Weight = float;
    static int words(int n) { return n; }
    static Floats add(Floats sum, Floats a, Floats b) { return a * b + sum; }
    static void put(Weight* to, Floats v) { write(to, v); }
    static Floats load(const float* from, int left) { return read_up_to<Floats>(from, left); }
    static Floats load(const bf16* from, int left) { return widen(read_up_to<Halves>(from, left)); }

    /// Lay out two neighbours' values, null for zeros: `columns` words each.
    template <class KV> static void lay(const KV* first, const KV* second, float* to, int dim, int columns) {
        for (const KV* row : {first, second}) {
            for (int at = 0; at < columns; at += LANES) write(to + at, row ? load(row + at, dim - at) : Floats{});
            to += columns;
        }
    }
};

#if defined(BERTH_PAIRS)
/// Products of bfloat16, two neighbours at a time, summed in float32. A word holds the two.
struct Pairs {
    using Weight = bf16;
    typedef uint16_t Wide __attribute__((vector_size(4 * LANES)));
    static int words(int n) { return (n + 1) / 2; }
    static Floats add(Floats sum, Floats a, Floats b) {
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
    }
    static void put(Weight* to, Floats v) { write(to, _mm512_cvtneps_pbh((__m512)v)); }
    static Floats load(const bf16* from, int left) { return reinterpret_cast<Floats>(read_up_to<Wide>(from, left)); }

    static void lay(const bf16* first, const bf16* second, float* to, int dim, int columns) {
        const __m512i low = zip(0), high = zip(LANES);
        for (int at = 0; at < columns; at += 2 * LANES) {
            __m512i a = first ? (__m512i)read_up_to<Wide>(first + at, dim - at) : __m512i{};
            __m512i b = second ? (__m512i)read_up_to<Wide>(second + at, dim - at) : __m512i{};
            write(to + at, _mm512_permutex2var_epi16(a, low, b));
            if (at + LANES < columns) write(to + at + LANES, _mm512_permutex2var_epi16(a, high, b));
        }
    }

    /// The order of a[from], b[from], a[from + 1] …
    static __m512i zip(int from) {
        Ints pairs = counting() + from;
        return (__m512i)(pairs | ((pairs + 2 * LANES) << 16));
    }
};
#endif

/// A row's maximum and sum, and its weighted values so far.
struct State {
    float *largest, *sum, *out;
    int columns;

    State(float* at, int rows, int dim) : largest(at), sum(at + rows), out(at + up(2 * rows, 16)), columns(up(dim, LANES)) {}

    static size_t floats(int rows, int dim) { return up(2 * rows, 16) + static_cast<size_t>(rows) * up(up(dim, LANES), 16); }

    void clear(int rows) {
        for (int row = 0; row < rows; row++) largest[row] = -__builtin_inff(), sum[row] = 0.0f;
        memset(out, 0, sizeof(float) * rows * columns);
    }

    void scale_row(int row, float by) {
        float* values = out + static_cast<size_t>(row) * columns;
        for (int at = 0; at < columns; at += LANES) write(values + at, read<Floats>(values + at) * spread(by));
    }

    /// Add the state of later keys.
    void add(const State& later, int rows) {
        for (int row = 0; row < rows; row++) {
            if (later.sum[row] == 0.0f) continue;  // it saw no key
            float top = largest[row] > later.largest[row] ? largest[row] : later.largest[row];
            float mine = sum[row] == 0.0f ? 0.0f : exp2_of(largest[row] - top), theirs = exp2_of(later.largest[row] - top);
            largest[row] = top;
            sum[row] = sum[row] * mine + later.sum[row] * theirs;
            float* to = out + static_cast<size_t>(row) * columns;
            const float* from = later.out + static_cast<size_t>(row) * columns;
            for (int at = 0; at < columns; at += LANES)
                write(to + at, read<Floats>(to + at) * spread(mine) + read<Floats>(from + at) * spread(theirs));
        }
    }
};

/// A thread's buffers for a work: as many queries and heads as given.
struct Scratch {
    int64_t* offsets;  // of a chunk's keys in the pool, in elements
    float *queries, *keys, *values, *scores, *weights, *chunk, *total;
    size_t bytes = 0;

    Scratch(const Call& call, int count, int heads, char* base) : base_(base) {
        int rows = count * call.group(), columns = up(call.dim, LANES);
        offsets = reinterpret_cast<int64_t*>(take(CHUNK_KEYS * 2));
        queries = take(static_cast<size_t>(heads) * rows * call.dim);
        keys = take(static_cast<size_t>(columns) * BLOCK_KEYS);
        values = take(static_cast<size_t>(columns) * BLOCK_KEYS);
        scores = take(static_cast<size_t>(rows) * BLOCK_KEYS);
        weights = take(static_cast<size_t>(rows) * BLOCK_KEYS);
        chunk = take(State::floats(rows, call.dim));
        total = take(State::floats(rows, call.dim));
    }

  private:
    char* base_;

    float* take(size_t floats) {
        char* at = base_ + bytes;
        bytes += (floats * sizeof(float) + 63) / 64 * 64;
        return reinterpret_cast<float*>(at);
    }
};

/// c (ROWS × VECTORS * LANES) += a (ROWS × depth) · b (depth × VECTORS * LANES); distances between rows in words.
template <class Math, int ROWS, int VECTORS>
inline void multiply_block(const float* a, int a_row, const float* b, int b_row, float* c, int c_row, int depth) {
    Floats sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sum[row][v] = read<Floats>(c + row * c_row + v * LANES);
    for (int k = 0; k < depth; k++) {
        Floats right[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) right[v] = read<Floats>(b + k * b_row + v * LANES);
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; row++) {
            Floats left = spread_word(a + row * a_row + k);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) sum[row][v] = Math::add(sum[row][v], left, right[v]);
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) write(c + row * c_row + v * LANES, sum[row][v]);
}

template <class Math, int VECTORS>
void multiply_rows(int rows, const float* a, int a_row, const float* b, int b_row, float* c, int c_row, int depth) {
    int row = 0;
    for (; row + BLOCK_ROWS <= rows; row += BLOCK_ROWS)
        multiply_block<Math, BLOCK_ROWS, VECTORS>(a + row * a_row, a_row, b, b_row, c + row * c_row, c_row, depth);
    a += row * a_row, c += row * c_row;
    switch (rows - row) {
        case 5: return multiply_block<Math, 5, VECTORS>(a, a_row, b, b_row, c, c_row, depth);
        case 4: return multiply_block<Math, 4, VECTORS>(a, a_row, b, b_row, c, c_row, depth);
        case 3: return multiply_block<Math, 3, VECTORS>(a, a_row, b, b_row, c, c_row, depth);
        case 2: return multiply_block<Math, 2, VECTORS>(a, a_row, b, b_row, c, c_row, depth);
        case 1: return multiply_block<Math, 1, VECTORS>(a, a_row, b, b_row, c, c_row, depth);
        default: return;
    }
}

/// c (rows × columns) += a · b; `columns` is a multiple of LANES.
template <class Math>
void multiply(int rows, int columns, const float* a, int a_row, const float* b, int b_row, float* c, int c_row, int depth) {
    int at = 0;
    for (; at + BLOCK_VECTORS * LANES <= columns; at += BLOCK_VECTORS * LANES)
        multiply_rows<Math, BLOCK_VECTORS>(rows, a, a_row, b + at, b_row, c + at, c_row, depth);
    for (; at < columns; at += LANES) multiply_rows<Math, 1>(rows, a, a_row, b + at, b_row, c + at, c_row, depth);
}

/// The keys of a block that are there: lanes `low … high - 1` of it.
struct Block {
    int64_t begin;
    int low, high;
};

/// Asks for the next block while this one is computed, in the order of the pool and a few lines at a time. The hardware
/// cannot guess it: a head's rows are far apart, pages anywhere, and a head alone would fill few sets of the first cache.
class Ahead {
  public:
    Ahead(const char* keys, const char* values, int element, int bytes) : keys_(keys), values_(values), element_(element), bytes_(bytes) {}

    /// Begin with the keys at `offsets`, to be asked for in so many steps.
    void begin(const int64_t* offsets, int keys, int steps) {
        offsets_ = offsets, left_ = keys, at_ = 0;
        lines_ = static_cast<int>((static_cast<int64_t>(keys) * ((bytes_ + LINE - 1) / LINE) + steps - 1) / steps);
    }

    void step() {
        for (int line = 0; line < lines_ && left_; line++) {
            __builtin_prefetch(keys_ + *offsets_ * element_ + at_, 0, 2);
            __builtin_prefetch(values_ + *offsets_ * element_ + at_, 0, 2);
            if ((at_ += LINE) >= bytes_) at_ = 0, offsets_++, left_--;
        }
    }

  private:
    static constexpr int LINE = 64;
    const char *keys_, *values_;
    const int element_, bytes_;
    const int64_t* offsets_ = nullptr;
    int left_ = 0, at_ = 0, lines_ = 0;
};

template <class KV, class Math> class TileRun {
  public:
    explicit TileRun(const Work& work)
        : work_(work), call_(*work.call), tile_(*work.tile), dim_(call_.dim), group_(call_.group()),
          rows_(tile_.queries * group_), words_(Math::words(dim_)), columns_(up(dim_, LANES)),
          scratch_(call_, tile_.queries, work.head_high - work.head_low, work.scratch),
          ahead_(static_cast<const char*>(call_.key) + work.head_low * dim_ * sizeof(KV),
                 static_cast<const char*>(call_.value) + work.head_low * dim_ * sizeof(KV), sizeof(KV),
                 (work.head_high - work.head_low) * dim_ * sizeof(KV)) {}

    void run() {
        for (int head = work_.head_low; head < work_.head_high; head++) lay_queries(head);
        for (int chunk = work_.chunk_low; chunk < work_.chunk_high; chunk++) {
            for (int head = work_.head_low; head < work_.head_high; head++) state(head).clear(rows_);
            attend_chunk(chunk);
            if (!work_.partial) add_chunk(chunk == work_.chunk_low);
        }
    }

    State state(int head) const {
        float* at = work_.partial ? work_.partial + (head - work_.head_low) * State::floats(rows_, dim_) : scratch_.chunk;
        return State(at, rows_, dim_);
    }

    State total() const { return State(scratch_.total, rows_, dim_); }

  private:
    static constexpr int STEPS_A_BLOCK = BLOCK_KEYS / 2;
    const Work& work_;
    const Call& call_;
    const Tile& tile_;
    const int dim_, group_, rows_, words_, columns_;
    const Scratch scratch_;
    Ahead ahead_;

    float* queries(int head) const { return scratch_.queries + static_cast<size_t>(head - work_.head_low) * rows_ * words_; }

    void lay_queries(int head) const {
        for (int query = 0; query < tile_.queries; query++) {
            const KV* from = static_cast<const KV*>(call_.query) + (tile_.row + query) * call_.query_stride;
            for (int member = 0; member < group_; member++) {
                const KV* row = from + static_cast<int64_t>(head * group_ + member) * dim_;
                float* to = queries(head) + static_cast<size_t>(query * group_ + member) * words_;
                if constexpr (sizeof(KV) == sizeof(typename Math::Weight)) {
                    if (dim_ % 2) to[words_ - 1] = 0.0f;
                    memcpy(to, row, dim_ * sizeof(KV));
                } else {
                    for (int at = 0; at < dim_; at++) to[at] = widen(Halves{} + row[at])[0];
                }
            }
        }
    }

    void attend_chunk(int chunk) {
        int64_t begin = static_cast<int64_t>(chunk) * CHUNK_KEYS, last = tile_.first + tile_.queries;
        int64_t high = lesser(begin + CHUNK_KEYS, last);
        int64_t low = greater(begin, call_.window ? tile_.first - call_.window + 1 : 0);
        find_keys(begin, low, high);
        for (int64_t at = low / BLOCK_KEYS * BLOCK_KEYS; at < high; at += BLOCK_KEYS) {
            Block block{at, static_cast<int>(greater(low - at, 0)), static_cast<int>(lesser(high - at, BLOCK_KEYS))};
            const int64_t* offsets = scratch_.offsets + (at - begin);
            int more = static_cast<int>(greater(0, lesser(BLOCK_KEYS, high - at - BLOCK_KEYS)));
            ahead_.begin(offsets + BLOCK_KEYS, more, (work_.head_high - work_.head_low) * STEPS_A_BLOCK);
            for (int head = work_.head_low; head < work_.head_high; head++) attend_block(block, offsets, head);
        }
    }

    /// Fill `offsets` for the positions from `begin` on, whole blocks; a key that is not there stands as its neighbour.
    void find_keys(int64_t begin, int64_t low, int64_t high) const {
        const int32_t* pages = call_.batch.pages + call_.batch.segments[tile_.segment].page;
        int64_t size = call_.batch.page_size, element = static_cast<int64_t>(call_.kv_heads) * dim_;
        int64_t page = low / size, within = low % size;
        for (int64_t at = low; at < high; at++) {
            scratch_.offsets[at - begin] = (pages[page] * size + within) * element;
            if (++within == size) within = 0, page++;
        }
        for (int64_t at = low / BLOCK_KEYS * BLOCK_KEYS; at < low; at++)
            scratch_.offsets[at - begin] = scratch_.offsets[low - begin];
        for (int64_t at = high; at % BLOCK_KEYS; at++) scratch_.offsets[at - begin] = scratch_.offsets[high - 1 - begin];
    }

    void attend_block(const Block& block, const int64_t* offsets, int head) {
        int seen = up(block.high, LANES);
        const KV* keys = static_cast<const KV*>(call_.key) + static_cast<int64_t>(head) * dim_;
        const KV* values = static_cast<const KV*>(call_.value) + static_cast<int64_t>(head) * dim_;
        State to = state(head);
        lay_keys(keys, offsets, seen);
        memset(scratch_.scores, 0, sizeof(float) * rows_ * BLOCK_KEYS);
        multiply<Math>(rows_, seen, queries(head), words_, scratch_.keys, BLOCK_KEYS, scratch_.scores, BLOCK_KEYS, words_);
        for (int row = 0; row < rows_; row++) weigh(block, row, seen, to);
        lay_values(values, offsets, block);
        multiply<Math>(rows_, columns_, scratch_.weights, Math::words(BLOCK_KEYS), scratch_.values, columns_, to.out,
                       columns_, Math::words(block.high));
    }

    /// Transpose: a row a word of the dimension, a column a key.
    void lay_keys(const KV* keys, const int64_t* offsets, int seen) {
        constexpr int WIDTH = LANES * static_cast<int>(sizeof(float) / sizeof(typename Math::Weight));
        for (int first = 0; first < seen; first += LANES) {
            for (int at = 0; at < dim_; at += WIDTH) {
                ahead_.step();
                Floats rows[LANES];
#pragma GCC unroll 16
                for (int key = 0; key < LANES; key++) rows[key] = Math::load(keys + offsets[first + key] + at, dim_ - at);
                transpose(rows);
                float* to = scratch_.keys + static_cast<size_t>(Math::words(at)) * BLOCK_KEYS + first;
#pragma GCC unroll 16
                for (int word = 0; word < LANES; word++) write(to + word * BLOCK_KEYS, rows[word]);
            }
        }
    }

    void lay_values(const KV* values, const int64_t* offsets, const Block& block) {
        float* to = scratch_.values;
        for (int key = 0; key < block.high; key += 2, to += Math::words(2) * columns_) {
            ahead_.step();
            const KV* first = key >= block.low ? values + offsets[key] : nullptr;
            const KV* second = key + 1 >= block.low && key + 1 < block.high ? values + offsets[key + 1] : nullptr;
            Math::lay(first, second, to, dim_, columns_);
        }
    }

    /// Turn a row's scores into weights, and lower what it has so far where its maximum rises.
    void weigh(const Block& block, int row, int seen, State& to) const {
        int64_t position = tile_.first + row / group_;
        int low = block.low, high = static_cast<int>(lesser(block.high, position + 1 - block.begin));
        if (call_.window) low = static_cast<int>(greater(low, position - call_.window + 1 - block.begin));
        float* scores = scratch_.scores + static_cast<size_t>(row) * BLOCK_KEYS;
        auto* weights = reinterpret_cast<typename Math::Weight*>(scratch_.weights) + static_cast<size_t>(row) * BLOCK_KEYS;
        if (low >= high) {
            for (int at = 0; at < seen; at += LANES) Math::put(weights + at, Floats{});
            return;
        }
        const Floats scale = spread(call_.scale * LOG2_E), none = spread(-__builtin_inff());
        const bool whole = low == 0 && high == seen;
        Floats most = none;
        for (int at = 0; at < seen; at += LANES) {
            Floats score = read<Floats>(scores + at) * scale;
            if (!whole) {
                Ints lane = counting() + at;
                score = (lane >= low) & (lane < high) ? score : none;
            }
            write(scores + at, score);
            most = larger(score, most);
        }
        float found = largest_of(most), before = to.largest[row], top = found > before ? found : before;
        Floats sum{};
        for (int at = 0; at < seen; at += LANES) {
            Floats weight = exp2_of(read<Floats>(scores + at) - spread(top));
            sum += weight;
            Math::put(weights + at, weight);
        }
        float by = to.sum[row] == 0.0f ? 1.0f : exp2_of(before - top);
        to.largest[row] = top;
        to.sum[row] = to.sum[row] * by + sum_of(sum);
        if (by != 1.0f) to.scale_row(row, by);
    }

    void add_chunk(bool first) const;
};

/// Write the finished rows of one key/value head.
template <class KV> void finish(const Call& call, const Tile& tile, int head, const State& state) {
    int group = call.group();
    for (int row = 0; row < tile.queries * group; row++) {
        int own = head * group + row % group;
        float top = state.largest[row], sum = state.sum[row], by = 1.0f;
        if (call.sinks) {
            float sink = call.sinks[own] * LOG2_E;
            if (sink > top) by = exp2_of(top - sink), top = sink;
            sum = sum * by + exp2_of(sink - top);
        }
        const float* from = state.out + static_cast<size_t>(row) * state.columns;
        KV* to = static_cast<KV*>(call.out) + ((tile.row + row / group) * call.heads + own) * call.dim;
        for (int at = 0; at < call.dim; at++) {
            float value = from[at] * (by / sum);
            if constexpr (sizeof(KV) == sizeof(bf16)) to[at] = to_bf16(value);
            else to[at] = value;
        }
    }
}

template <class KV, class Math> void TileRun<KV, Math>::add_chunk(bool first) const {
    if (first) memcpy(scratch_.total, scratch_.chunk, State::floats(rows_, dim_) * sizeof(float));
    else total().add(state(work_.head_low), rows_);
}

template <class KV, class Math> void run_as(const Work& work) {
    TileRun<KV, Math> tile(work);
    tile.run();
    if (!work.partial) finish<KV>(*work.call, *work.tile, work.head_low, tile.total());
}

void run(const Work& work) {
#if defined(BERTH_PAIRS)
    if (work.call->half) return run_as<bf16, Pairs>(work);
#else
    if (work.call->half) return run_as<bf16, Singles>(work);
#endif
    run_as<float, Singles>(work);
}

size_t state_floats(const Call& call, int queries) { return State::floats(queries * call.group(), call.dim); }

void merge(const Call& call, const Tile& tile, int head_low, int head_high, float* partials) {
    int rows = tile.queries * call.group();
    size_t size = State::floats(rows, call.dim);
    for (int head = head_low; head < head_high; head++) {
        State total(partials + head * size, rows, call.dim);
        for (int chunk = 1; chunk < tile.chunk_high - tile.chunk_low; chunk++)
            total.add(State(partials + (static_cast<size_t>(chunk) * call.kv_heads + head) * size, rows, call.dim), rows);
        if (call.half) finish<bf16>(call, tile, head, total);
        else finish<float>(call, tile, head, total);
    }
}

size_t scratch_bytes(const Call& call, int queries, int heads) { return Scratch(call, queries, heads, nullptr).bytes; }

extern const Path path;
const Path path = {BERTH_NAME, scratch_bytes, state_floats, run, merge};

}  // namespace BERTH_PATH
