// What the parts of the library share: a step's shape, one layer's attention, and the work of one thread.

#pragma once

#include <cstddef>
#include <cstdint>

/// Positions of keys that are attended to at once, and that share one sum: both on a grid of absolute positions, so that
/// a query's result depends on its position and its keys alone, never on the batch or on how the work was cut.
constexpr int BLOCK_KEYS = 64, CHUNK_KEYS = 512;

/// One sequence's share of a step, as the Python side lays it out (int64 each).
struct Segment {
    int64_t start, end, kept;
    int64_t row;   // of the position `start` among the step's rows
    int64_t page;  // of position 0, an index into `Batch::pages`
};

struct Batch {
    const Segment* segments;
    const int32_t* pages;
    int64_t count, page_size;
};

/// One layer's attention over a batch. The pool is (pages, page_size, kv_heads, dim), rows of queries are `query_stride`
/// elements apart, `out` is contiguous.
struct Call {
    Batch batch;
    const void *key, *value, *query;
    void* out;
    const float* sinks;  // a logit each head, or null
    int64_t query_stride, window;  // window 0: none
    int32_t heads, kv_heads, dim;
    int32_t half;  // bfloat16, else float32
    float scale;

    int group() const { return heads / kv_heads; }
};

/// Adjacent queries of one segment.
struct Tile {
    int64_t segment, first, row;  // `first`: the position of the first query
    int32_t queries;
    int32_t chunk_low, chunk_high;  // the chunks of keys that they see
    bool split;                     // its chunks are tasks of their own
    int64_t task;                   // its first task
    int64_t partial;                // split: where its partial results begin, in floats
    int64_t left;                   // split: where its counters of chunks to come begin
};

/// What a thread does at a time: some heads of a tile over some chunks. `partial` null: over all chunks, into `out`.
struct Work {
    const Call* call;
    const Tile* tile;
    int32_t chunk_low, chunk_high, head_low, head_high;
    float* partial;  // the state of `head_low` at `chunk_low`; a state for each head follows
    char* scratch;
};

/// out (rows × columns) = x (rows × depth) · weight (columns × depth), transposed, + bias, all of one dtype and contiguous
/// but for `x`, whose rows are `x_stride` elements apart.
struct Linear {
    const void *x, *weight, *bias;  // `bias` may be null
    void* out;
    int64_t rows, columns, depth, x_stride;
    int32_t half;  // bfloat16, else float32
};

/// The same code, compiled for one instruction set.
struct Path {
    const char* name;
    size_t (*scratch_bytes)(const Call&, int queries, int heads);
    size_t (*state_floats)(const Call&, int queries);
    void (*run)(const Work&);
    /// Sum up the chunks of a split tile, whose states for all heads begin at `partials`, and write `out`.
    void (*merge)(const Call&, const Tile&, int head_low, int head_high, float* partials);
    /// The columns `low … high - 1` of a linear layer.
    void (*linear)(const Linear&, int64_t low, int64_t high);
};
