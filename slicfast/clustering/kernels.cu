// The cupy backend's kernels: products fused with the search for their largest, rescoring, sums by label.
//
// NVRTC compiles this file (compute capability 8.0 and later); the tests compile it as C++ and run it on a CPU,
// thread by thread, with the primitives of emulated_cuda.h in place of those below. Halves are only ever
// multiplied by tensor cores here, so they are plain 16-bit words. Fragments of mma.m16n8k16 and of ldmatrix are
// laid out as the PTX ISA describes them, "Matrix Fragments for mma.m16n8k16" and "ldmatrix".

#ifndef SLICFAST_EMULATED
#ifndef INFINITY  // NVRTC brings no headers
#define INFINITY __int_as_float(0x7f800000)
#endif
#define SHARED_MEMORY extern __shared__ __align__(128) unsigned char memory[]

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// 16 bytes to shared memory, without waiting; zeros where the source is not there.
__device__ __forceinline__ void copy_async(void* target, const void* source, bool is_there) {
    const int num_bytes = is_there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(target)), "l"(source),
                 "r"(num_bytes)
                 : "memory");
}

__device__ __forceinline__ void end_copy_group() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

template <int NUM_LEFT>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(NUM_LEFT) : "memory");
}

__device__ __forceinline__ void load_matrices(unsigned (&fragment)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

namespace {
constexpr int TILE = 128;           // queries a block, and keys a step
constexpr int PANEL = 64;           // dimensions of a step: rows of 128 bytes, their eighths permuted by row
constexpr int STAGES = 3;           // panels of keys in flight
constexpr int THREADS = 256;        // eight warps: four by 32 queries, two by 64 keys
constexpr int PANEL_SIZE = TILE * PANEL;
constexpr float NOTHING = -1e30f;   // below every score; keys that are not there score less

// The two best keys of a query, and the third best score.
struct Best {
    float first, second, third;
    int first_key, second_key;
};

__device__ __forceinline__ void insert(Best& best, float score, int key) {
    if (score > best.first) {
        best.third = best.second;
        best.second = best.first;
        best.second_key = best.first_key;
        best.first = score;
        best.first_key = key;
    } else if (score > best.second) {
        best.third = best.second;
        best.second = score;
        best.second_key = key;
    } else if (score > best.third) {
        best.third = score;
    }
}

__device__ __forceinline__ void merge(Best& best, const Best& other) {
    insert(best, other.first, other.first_key);
    insert(best, other.second, other.second_key);
    best.third = best.third > other.third ? best.third : other.third;  // two of its own lie above it
}

// Where the eighth `chunk` of a row begins in a panel, such that eight rows' same eighths lie in different banks.
__device__ __forceinline__ int place(int row, int chunk) { return row * PANEL + ((chunk ^ (row & 7)) << 3); }

__device__ __forceinline__ void load_panel(unsigned short* panel, const unsigned short* rows, int first_row,
                                           int num_rows, int dims, int first_dim) {
#pragma unroll
    for (int i = 0; i < PANEL_SIZE / 8 / THREADS; ++i) {
        const int piece = threadIdx.x + i * THREADS;
        const int row = piece >> 3, chunk = piece & 7;
        const bool is_there = first_row + row < num_rows;
        const long long source = is_there ? static_cast<long long>(first_row + row) * dims : 0;
        copy_async(panel + place(row, chunk), rows + source + first_dim + chunk * 8, is_there);
    }
}
}  // namespace

// Of each query the two keys with the largest q . k + bias and the third largest such score.
//
// queries (Q, dims), keys (M, dims) float16, dims a multiple of 64; bias float32, filled up to a multiple of 128 keys
// with -inf or the like; index (Q, 2) int64, -1 where there is no key; rest (Q,) float32, -inf where there is no third.
// Shared memory: 2 * 128 * dims + 3 * 16384 bytes. A block takes 128 queries, which stay in shared memory, and
// passes over all keys; scores live in registers only.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
candidates(const unsigned short* __restrict__ queries, const unsigned short* __restrict__ keys,
           const float* __restrict__ bias, int num_queries, int num_keys, int dims, int exclude_same_row,
           long long* __restrict__ index, float* __restrict__ rest) {
    SHARED_MEMORY;
    unsigned short* query_panels = reinterpret_cast<unsigned short*>(memory);
    unsigned short* key_panels = query_panels + TILE * dims;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int warp_query = (warp & 3) * 32, warp_key = (warp >> 2) * 64;
    const int first_query = blockIdx.x * TILE;
    const int num_panels = dims / PANEL;
    const int num_steps = (num_keys + TILE - 1) / TILE * num_panels;

    for (int panel = 0; panel < num_panels; ++panel)
        load_panel(query_panels + panel * PANEL_SIZE, queries, first_query, num_queries, dims, panel * PANEL);
    int next_key = 0, next_panel = 0;  // what is loaded next
    for (int step = 0; step < STAGES - 1; ++step) {
        if (step < num_steps) {
            load_panel(key_panels + step * PANEL_SIZE, keys, next_key, num_keys, dims, next_panel * PANEL);
            if (++next_panel == num_panels) next_panel = 0, next_key += TILE;
        }
        end_copy_group();  // of every step, so that groups can be counted; the first holds the queries as well
    }

    Best best[4];  // of queries lane / 4 + 8 i
#pragma unroll
    for (int i = 0; i < 4; ++i) best[i] = {NOTHING, NOTHING, NOTHING, -1, -1};
    float sums[2][8][4];
    int first_key = 0, panel = 0, stage = 0;
    for (int step = 0; step < num_steps; ++step) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();  // this step's panel is there for all, and all are done with the one before
        if (step + STAGES - 1 < num_steps) {
            unsigned short* target = key_panels + (stage == 0 ? STAGES - 1 : stage - 1) * PANEL_SIZE;
            load_panel(target, keys, next_key, num_keys, dims, next_panel * PANEL);
            if (++next_panel == num_panels) next_panel = 0, next_key += TILE;
        }
        end_copy_group();

        if (panel == 0) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const float* at = bias + first_key + warp_key + j * 8 + (lane & 3) * 2;
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    sums[i][j][0] = sums[i][j][2] = at[0];
                    sums[i][j][1] = sums[i][j][3] = at[1];
                }
            }
        }
        const unsigned short* query_panel = query_panels + panel * PANEL_SIZE;
        const unsigned short* key_panel = key_panels + stage * PANEL_SIZE;
#pragma unroll
        for (int k = 0; k < PANEL / 16; ++k) {
            unsigned a[2][4];
#pragma unroll
            for (int i = 0; i < 2; ++i)
                load_matrices(a[i], query_panel + place(warp_query + i * 16 + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                unsigned b[4];
                load_matrices(b, key_panel + place(warp_key + j * 16 + (lane & 7) + ((lane >> 4) << 3),
                                                   2 * k + ((lane >> 3) & 1)));
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    multiply_add(sums[i][2 * j], a[i], b[0], b[1]);
                    multiply_add(sums[i][2 * j + 1], a[i], b[2], b[3]);
                }
            }
        }
        stage = stage == STAGES - 1 ? 0 : stage + 1;
        if (++panel < num_panels) continue;

        const int lane_key = first_key + warp_key + (lane & 3) * 2;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int half = (i & 1) * 2;
            if (exclude_same_row && first_key == first_query) {
                const int query = first_query + warp_query + i * 8 + (lane >> 2);
#pragma unroll
                for (int j = 0; j < 16; ++j)
                    if (lane_key + (j >> 1) * 8 + (j & 1) == query) sums[i >> 1][j >> 1][half + (j & 1)] = 2 * NOTHING;
            }
            float largest = 2 * NOTHING;
#pragma unroll
            for (int j = 0; j < 16; ++j) largest = fmaxf(largest, sums[i >> 1][j >> 1][half + (j & 1)]);
            if (largest > best[i].third) {  // seldom, once many keys were seen
#pragma unroll
                for (int j = 0; j < 16; ++j)
                    insert(best[i], sums[i >> 1][j >> 1][half + (j & 1)], lane_key + (j >> 1) * 8 + (j & 1));
            }
        }
        panel = 0;
        first_key += TILE;
    }

    wait_for_copies<0>();
    __syncthreads();  // shared memory is free
    Best* others = reinterpret_cast<Best*>(memory);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int apart = 1; apart < 4; apart *= 2) {
            Best other;
            other.first = __shfl_xor_sync(0xffffffffu, best[i].first, apart);
            other.second = __shfl_xor_sync(0xffffffffu, best[i].second, apart);
            other.third = __shfl_xor_sync(0xffffffffu, best[i].third, apart);
            other.first_key = __shfl_xor_sync(0xffffffffu, best[i].first_key, apart);
            other.second_key = __shfl_xor_sync(0xffffffffu, best[i].second_key, apart);
            merge(best[i], other);
        }
        if (warp_key > 0 && (lane & 3) == 0) others[warp_query + i * 8 + (lane >> 2)] = best[i];
    }
    __syncthreads();
    if (warp_key > 0 || (lane & 3) != 0) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int row = warp_query + i * 8 + (lane >> 2);
        const long long query = first_query + row;
        if (query >= num_queries) continue;
        merge(best[i], others[row]);
        index[2 * query] = best[i].first_key;
        index[2 * query + 1] = best[i].second_key;
        rest[query] = best[i].third > NOTHING ? best[i].third : -INFINITY;
    }
}

// Of each query the better of its candidates in float32, and whether other keys may be better still.
//
// queries (Q, dims), keys (M, dims), bias (M,), limit (Q,) float32; candidates (Q, 2) int64, -1: none. A warp takes a
// query. index (Q,) int64, the lower one of equal candidates; score (Q,) float32; is_open (Q,) bytes.
extern "C" __global__ void rescore(const float* __restrict__ queries, const float* __restrict__ keys,
                                   const float* __restrict__ bias, const long long* __restrict__ candidates,
                                   const float* __restrict__ limit, int num_queries, int dims,
                                   long long* __restrict__ index, float* __restrict__ score,
                                   unsigned char* __restrict__ is_open) {
    const int lane = threadIdx.x & 31;
    const long long query = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) >> 5;
    if (query >= num_queries) return;
    const long long first = candidates[2 * query], second = candidates[2 * query + 1];
    const float* row = queries + query * dims;
    const float* first_row = keys + (first < 0 ? 0 : first) * dims;
    const float* second_row = keys + (second < 0 ? 0 : second) * dims;
    float first_sum = 0.0f, second_sum = 0.0f;
    for (int dim = lane; dim < dims; dim += 32) {
        first_sum += row[dim] * first_row[dim];
        second_sum += row[dim] * second_row[dim];
    }
    for (int apart = 16; apart > 0; apart /= 2) {
        first_sum += __shfl_xor_sync(0xffffffffu, first_sum, apart);
        second_sum += __shfl_xor_sync(0xffffffffu, second_sum, apart);
    }
    if (lane != 0) return;
    first_sum = first < 0 ? -INFINITY : first_sum + bias[first];
    second_sum = second < 0 ? -INFINITY : second_sum + bias[second];
    const bool takes_second = second_sum > first_sum || (second_sum == first_sum && second >= 0 && second < first);
    const float best = takes_second ? second_sum : first_sum;
    index[query] = takes_second ? second : (first < 0 ? 0 : first);
    score[query] = best;
    is_open[query] = !(best > limit[query]);
}

// Sums of the rows of each label, added in a fixed order.
//
// rows (N, dims) float32; order (N,) int64, the rows sorted by label; ends (K,) int64, where each label's rows end in
// it; sums (K, dims). A block takes a label; its warps take rows in turn. Shared memory: 4 bytes a thread.
extern "C" __global__ void segment_sums(const float* __restrict__ rows, const long long* __restrict__ order,
                                        const long long* __restrict__ ends, int dims, float* __restrict__ sums) {
    SHARED_MEMORY;
    float* partial = reinterpret_cast<float*>(memory);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, num_warps = blockDim.x >> 5;
    const long long label = blockIdx.x;
    const long long begin = label == 0 ? 0 : ends[label - 1], end = ends[label];
    for (int first_dim = 0; first_dim < dims; first_dim += 32) {
        const int dim = first_dim + lane;
        float sum = 0.0f;
        if (dim < dims)
            for (long long i = begin + warp; i < end; i += num_warps) sum += rows[order[i] * dims + dim];
        partial[threadIdx.x] = sum;
        __syncthreads();
        if (warp == 0 && dim < dims) {
            for (int other = 1; other < num_warps; ++other) sum += partial[other * 32 + lane];
            sums[label * dims + dim] = sum;
        }
        __syncthreads();
    }
}
