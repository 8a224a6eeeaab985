// cc: -ffp-contract=off
/* Weights are rounded as Pillow's are: the same bits on every processor. */

/* Arithmetic on 8-bit pixels; see pixels.py.

   Resizing is antialiased and bilinear, and only a square is kept: the integer arithmetic of Pillow's Resample.c, so that
   every value is the same, on vectors and without what the square does not need. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
enum { BITS = 22, HALF = 1 << (BITS - 1) };

typedef int32_t Int4 __attribute__((vector_size(16)));

/* Weights in units of 2^-22 of the `n` outputs from `first` on, when `in` pixels become `out`. Output i is the sum over
   t < taps of weights[i * taps + t] times pixel starts[i] + t; weights of pixels beyond the last one are 0. At least
   2 ceil(max(1, in / out)) + 1 taps. Returned in `most`: how many of them some output needs. */
void weigh(int64_t in, int64_t out, int64_t first, int64_t n, int64_t taps, int32_t *starts, int32_t *weights,
           int64_t *most) {
  const double scale = (double)in / out, reach = scale < 1 ? 1 : scale, inverse = 1 / reach;
  double weight[taps];
  *most = 0;
  for (int64_t i = 0; i < n; i++) {
    const double center = (first + i + 0.5) * scale;
    int start = (int)(center - reach + 0.5), end = (int)(center + reach + 0.5);
    start = start < 0 ? 0 : start;
    end = end > in ? (int)in : end;
    double sum = 0;
    for (int t = 0; t < end - start; t++) {
      const double distance = fabs((t + start - center + 0.5) * inverse);
      sum += weight[t] = distance < 1 ? 1 - distance : 0;
    }
    for (int t = 0; t < taps; t++)
      weights[i * taps + t] = t < end - start ? (int32_t)(0.5 + weight[t] / sum * (1 << BITS)) : 0;
    starts[i] = start;
    *most = end - start > *most ? end - start : *most;
  }
}

/* A row of color, one integer for a value. Each vector holds a pixel and the next one's first value, which is ignored:
   in `to` it is written over. */
INLINE void color_row(const int32_t *from, int32_t *to, int64_t n, int64_t stride, const int32_t *starts,
                      const int32_t *weights, int64_t taps) {
  for (int64_t i = 0; i < n; i++) {
    Int4 sum = {HALF, HALF, HALF, HALF};
    for (int64_t t = 0; t < taps; t++) {
      Int4 pixel;
      memcpy(&pixel, from + (starts[i] + t) * 3, sizeof pixel);
      sum += pixel * weights[i * stride + t];
    }
    sum >>= BITS;
    memcpy(to + i * 3, &sum, sizeof sum);
  }
}

INLINE void grey_row(const int32_t *from, int32_t *to, int64_t n, int64_t stride, const int32_t *starts,
                     const int32_t *weights, int64_t taps) {
  for (int64_t i = 0; i < n; i++) {
    int32_t sum = HALF;
    for (int64_t t = 0; t < taps; t++) sum += from[starts[i] + t] * weights[i * stride + t];
    to[i] = sum >> BITS;
  }
}

/* from: rows of width x channels; to: (n, n, channels). starts and weights are those of the columns, then those of the
   rows; `across_taps` and `down_taps` are how many of the `stride` weights are not 0. `across`: room for
   (rows, n, channels). `wide`: room for (width + stride + n) channels + 8. No value needs to be clipped: no weight is
   negative and they sum to 1, up to 2^-23 for each, of which there are less than 2^14. */
void resize(const uint8_t *from, uint8_t *to, int64_t rows, int64_t width, int64_t channels, int64_t n, int64_t stride,
            int64_t across_taps, int64_t down_taps, const int32_t *starts, const int32_t *weights, uint8_t *across,
            int32_t *wide) {
  const int64_t length = n * channels, room = (width + stride) * channels + 4;
  int32_t *narrow = wide + room;
  memset(wide, 0, room * sizeof *wide);
  for (int64_t r = 0; r < rows; r++) {
    const uint8_t *row = from + r * width * channels;
    for (int64_t j = 0; j < width * channels; j++) wide[j] = row[j];
    if (channels != 3)
      grey_row(wide, narrow, n, stride, starts, weights, across_taps);
    else if (across_taps <= 2) /* each with its loop unrolled */
      color_row(wide, narrow, n, stride, starts, weights, 2);
    else if (across_taps == 3)
      color_row(wide, narrow, n, stride, starts, weights, 3);
    else if (across_taps == 4)
      color_row(wide, narrow, n, stride, starts, weights, 4);
    else
      color_row(wide, narrow, n, stride, starts, weights, across_taps);
    for (int64_t j = 0; j < length; j++) across[r * length + j] = narrow[j];
  }
  starts += n, weights += n * stride;
  for (int64_t i = 0; i < n; i++, to += length, weights += stride) {
    for (int64_t j = 0; j < length; j++) narrow[j] = HALF;
    for (int64_t t = 0; t < down_taps && starts[i] + t < rows; t++) {
      const uint8_t *restrict row = across + (starts[i] + t) * length;
      const int32_t weight = weights[t];
      for (int64_t j = 0; j < length; j++) narrow[j] += row[j] * weight;
    }
    for (int64_t j = 0; j < length; j++) to[j] = narrow[j] >> BITS;
  }
}

/* Of images of `pixels` x channels, adds to `sums` (pixels, channels) their values and to `products` (channels, channels)
   those of two channels multiplied, over all pixels; of three channels only the lower triangle. */
void add_moments(const uint8_t *images, int64_t n, int64_t pixels, int64_t channels, uint32_t *sums, uint64_t *products) {
  enum { BLOCK = 1 << 15 }; /* 2^15 255^2 < 2^32 */
  for (int64_t i = 0; i < n; i++, images += pixels * channels) {
    for (int64_t j = 0; j < pixels * channels; j++) sums[j] += images[j];
    for (int64_t first = 0; first < pixels; first += BLOCK) {
      const int64_t end = first + BLOCK < pixels ? first + BLOCK : pixels;
      uint32_t rr = 0, gr = 0, gg = 0, br = 0, bg = 0, bb = 0;
      if (channels == 1) {
        for (int64_t p = first; p < end; p++) rr += (uint32_t)images[p] * images[p];
      } else {
        for (int64_t p = first; p < end; p++) {
          const uint32_t r = images[3 * p], g = images[3 * p + 1], b = images[3 * p + 2];
          rr += r * r, gr += g * r, gg += g * g, br += b * r, bg += b * g, bb += b * b;
        }
        products[3] += gr, products[4] += gg, products[6] += br, products[7] += bg, products[8] += bb;
      }
      products[0] += rr;
    }
  }
}
