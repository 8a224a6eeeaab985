// cc: -fopenmp -fno-math-errno -fno-trapping-math -fno-tree-loop-distribute-patterns
/* OpenMP's calls go to the library that torch has loaded, and use torch's threads. Without errno and traps comparisons become
   vector instructions; results do not change. The last flag keeps short loops loops, not calls of memset. */

/* Response normalization on a CPU: y = x s^(-3/4), s = k + c (sum of x^2 over a window); see layout.py.

   A tensor is (rows, groups, length, step) in memory. It is worked on in blocks that stay in the first-level cache: some
   rows, and a tile of at most TILE of the `step` elements that lie side by side. In a block's buffers a gap of zeros
   follows each run of `length` cells, so that a window never sees what is beyond the border. */

#include <math.h>
#include <stdint.h>
#include <string.h>

extern int omp_get_thread_num(void);

#define INLINE static inline __attribute__((always_inline))
enum { TILE = 16, BUFFERS = 5 };

typedef struct {
  int64_t rows, groups, length, step;
  int64_t size, square, relu, bfloat16; /* window; 1: it spans groups too; 1: of max(x, 0); element type, else float */
  float k, c;
  int64_t threads;
  int64_t rows_in_block, room; /* floats of one buffer */
  float *scratch;              /* threads x BUFFERS x room */
} Call;

INLINE float widen(uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, 4);
  return value;
}

INLINE uint16_t narrow(float value) { /* to nearest, ties to even */
  uint32_t wide;
  memcpy(&wide, &value, 4);
  const uint32_t rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
  return value != value ? 0x7fc0 : rounded;
}

/* s^(-1/4) to about one unit in the last place: a first guess from the exponent, then Newton's iteration. The powers
   needed are its cube and its seventh power; dividing and taking roots would cost several times as much. */
INLINE float inverse_fourth_root(float s) {
  uint32_t bits;
  memcpy(&bits, &s, 4);
  bits = 0x4f58cae5u - (bits >> 2);
  float r;
  memcpy(&r, &bits, 4);
  const float quarter = 0.25f * s;
  for (int i = 0; i < 3; i++) {
    const float square = r * r;
    r *= 1.25f - quarter * square * square;
  }
  return r;
}

INLINE void load_run(float *restrict to, const void *from, int64_t at, int64_t n, int bfloat16) {
  if (bfloat16)
    for (int64_t i = 0; i < n; i++) to[i] = widen(((const uint16_t *)from)[at + i]);
  else
    for (int64_t i = 0; i < n; i++) to[i] = ((const float *)from)[at + i];
}

INLINE void store_run(void *restrict to, int64_t at, const float *restrict from, int64_t n, int bfloat16) {
  if (bfloat16)
    for (int64_t i = 0; i < n; i++) ((uint16_t *)to)[at + i] = narrow(from[i]);
  else
    for (int64_t i = 0; i < n; i++) ((float *)to)[at + i] = from[i];
}

INLINE float sum(const float *from, int64_t step, int64_t size) {
  float total = from[0];
  for (int64_t j = 1; j < size; j++) total += from[j * step];
  return total;
}

typedef struct {
  int64_t row, rows, lane, lanes; /* first and number of the rows and elements of `step` */
  int64_t run, row_run, margin, cells; /* floats in a buffer: of a run, of a row, before the first cell, of all cells */
} Block;

INLINE Block block_at(const Call *p, int64_t b) {
  const int64_t tiles = (p->step + TILE - 1) / TILE, half = p->size / 2;
  Block k;
  k.row = b / tiles * p->rows_in_block;
  k.rows = p->rows - k.row < p->rows_in_block ? p->rows - k.row : p->rows_in_block;
  k.lane = b % tiles * TILE;
  k.lanes = p->step - k.lane < TILE ? p->step - k.lane : TILE;
  k.run = (p->length + half) * k.lanes;
  k.row_run = (p->groups + (p->square ? half : 0)) * k.run;
  k.margin = half * k.lanes + (p->square ? half * k.run : 0);
  k.cells = k.rows * k.row_run;
  return k;
}

INLINE void load(const Call *p, const Block *k, float *to, const void *from) {
  const int64_t half = p->size / 2;
  float *run = to;
  for (int64_t r = k->row; r < k->row + k->rows; r++) {
    for (int64_t g = 0; g < p->groups; g++, run += k->run) {
      const int64_t at = (r * p->groups + g) * p->length * p->step + k->lane;
      if (k->lanes == p->step)
        load_run(run, from, at, p->length * p->step, p->bfloat16);
      else
        for (int64_t c = 0; c < p->length; c++) load_run(run + c * k->lanes, from, at + c * p->step, k->lanes, p->bfloat16);
      for (int64_t i = 0; i < half * k->lanes; i++) run[p->length * k->lanes + i] = 0;
    }
    if (p->square) {
      memset(run, 0, 4 * half * k->run);
      run += half * k->run;
    }
  }
}

INLINE void store(const Call *p, const Block *k, void *to, const float *from) {
  const float *run = from;
  for (int64_t r = k->row; r < k->row + k->rows; r++) {
    for (int64_t g = 0; g < p->groups; g++, run += k->run) {
      const int64_t at = (r * p->groups + g) * p->length * p->step + k->lane;
      if (k->lanes == p->step)
        store_run(to, at, run, p->length * p->step, p->bfloat16);
      else
        for (int64_t c = 0; c < p->length; c++) store_run(to, at + c * p->step, run + c * k->lanes, k->lanes, p->bfloat16);
    }
    if (p->square) run += p->size / 2 * k->run;
  }
}

/* A window is summed in one step along a run, or in two, along runs and across them. Does the first of two. */
INLINE const float *prepare_sums(const Call *p, const Block *k, const float *from, float *spare, int64_t size) {
  if (!p->square) return from;
#pragma omp simd
  for (int64_t i = 0; i < k->cells + (size - 1) * k->run; i++) spare[i] = sum(from + i, k->lanes, size);
  return spare;
}

INLINE void load_input(const Call *p, const Block *k, float *restrict u, float *restrict squares, const void *x) {
  const float least = p->relu ? 0 : -INFINITY;
#pragma omp simd
  for (int64_t i = 0; i < k->margin; i++) u[i] = u[k->margin + k->cells + i] = 0;
  load(p, k, u + k->margin, x);
#pragma omp simd
  for (int64_t i = 0; i < k->cells + 2 * k->margin; i++) {
    const float v = u[i] < least ? least : u[i];
    u[i] = v;
    squares[i] = v * v;
  }
}

INLINE void forward_block(const Call *p, int64_t b, const void *x, void *y, float *scratch, int64_t size) {
  const Block k = block_at(p, b);
  float *restrict u = scratch, *restrict a = u + p->room, *restrict out = a + p->room, *restrict spare = out + p->room;
  const float constant = p->k, c = p->c;
  const int64_t margin = k.margin, step = p->square ? k.run : k.lanes;
  load_input(p, &k, u, a, x);
  const float *restrict from = prepare_sums(p, &k, a, spare, size);
#pragma omp simd
  for (int64_t i = 0; i < k.cells; i++) {
    const float q = inverse_fourth_root(constant + c * sum(from + i, step, size));
    out[i] = u[i + margin] * (q * q * q);
  }
  store(p, &k, y, out);
}

INLINE void backward_block(const Call *p, int64_t b, const void *x, const void *g, void *dx, float *scratch, int64_t size) {
  const Block k = block_at(p, b);
  float *restrict u = scratch, *restrict a = u + p->room, *restrict d = a + p->room, *restrict t = d + p->room;
  float *restrict spare = t + p->room;
  const float constant = p->k, c = p->c, factor = 1.5f * c;
  const int64_t margin = k.margin, step = p->square ? k.run : k.lanes, relu = p->relu;
  load_input(p, &k, u, a, x);
  load(p, &k, d, g);
  for (int64_t i = 0; i < margin; i++) t[i] = t[margin + k.cells + i] = 0;
  const float *restrict from = prepare_sums(p, &k, a, spare, size);
#pragma omp simd
  for (int64_t i = 0; i < k.cells; i++) {
    const float q = inverse_fourth_root(constant + c * sum(from + i, step, size)), q3 = q * q * q, dq3 = d[i] * q3;
    d[i] = dq3;
    t[i + margin] = dq3 * u[i + margin] * (q3 * q);
  }
  const float *restrict from_t = prepare_sums(p, &k, t, spare, size);
#pragma omp simd
  for (int64_t i = 0; i < k.cells; i++) {
    const float v = u[i + margin];
    a[i] = d[i] - factor * v * sum(from_t + i, step, size);
    a[i] = relu && v == 0 ? 0 : a[i];
  }
  store(p, &k, dx, a);
}

INLINE int64_t blocks(const Call *p) {
  return (p->rows + p->rows_in_block - 1) / p->rows_in_block * ((p->step + TILE - 1) / TILE);
}

void forward(const Call *p, const void *x, void *y) {
#pragma omp parallel for num_threads(p->threads) schedule(static)
  for (int64_t b = 0; b < blocks(p); b++) {
    float *scratch = p->scratch + omp_get_thread_num() * BUFFERS * p->room;
    if (p->size == 5) forward_block(p, b, x, y, scratch, 5); /* a known number of terms is added in registers */
    else forward_block(p, b, x, y, scratch, p->size);
  }
}

void backward(const Call *p, const void *x, const void *g, void *dx) {
#pragma omp parallel for num_threads(p->threads) schedule(static)
  for (int64_t b = 0; b < blocks(p); b++) {
    float *scratch = p->scratch + omp_get_thread_num() * BUFFERS * p->room;
    if (p->size == 5) backward_block(p, b, x, g, dx, scratch, 5);
    else backward_block(p, b, x, g, dx, scratch, p->size);
  }
}
