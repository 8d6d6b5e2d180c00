/* The exact conjugate case in moments, for a few observations y = H t + e of many parameters.
 *
 * gaussian.py says what is computed, with torch. Everything is float64 and C-contiguous; matrices
 * of k rows of n lie with the long side along memory.
 */
#include <math.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

INLINE double dot(int64_t n, const double *a, const double *b)
{
    double sums[16] = {0}, sum = 0; /* side by side in vectors, so that none waits for another */
    int64_t f = 0;
    for (; f + 16 <= n; f += 16)
        for (int l = 0; l < 16; l++)
            sums[l] += a[f + l] * b[f + l];
    for (; f < n; f++)
        sum += a[f] * b[f];
    for (int l = 0; l < 16; l++)
        sum += sums[l];
    return sum;
}

/* Predictive of y: mean H m [k], H S H' [k][k], and L^-1 [k][k] for H S H' + R = L L'.
 * `gain` is H S [k][n]. Returns 0, or 1 if the predictive is not positive definite. */
int32_t conjugate_predict(int64_t n, int64_t k, const double *mean, const double *design,
                          const double *gain, const double *noise, double *predicted,
                          double *epistemic, double *inverse)
{
    double chol[k * k];
    for (int64_t i = 0; i < k; i++) {
        predicted[i] = dot(n, design + i * n, mean);
        for (int64_t j = 0; j <= i; j++)
            epistemic[i * k + j] = epistemic[j * k + i] = dot(n, design + i * n, gain + j * n);
    }
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j <= i; j++) {
            double left = epistemic[i * k + j] + (i == j ? noise[i] : 0);
            for (int64_t f = 0; f < j; f++)
                left -= chol[i * k + f] * chol[j * k + f];
            if (i == j && !(left > 0))
                return 1;
            chol[i * k + j] = i == j ? sqrt(left) : left / chol[j * k + j];
        }
    for (int64_t j = 0; j < k; j++)
        for (int64_t i = 0; i < k; i++) {
            double left = i == j;
            for (int64_t f = j; f < i; f++)
                left -= chol[i * k + f] * inverse[f * k + j];
            inverse[i * k + j] = i < j ? 0 : left / chol[i * k + i];
        }
    return 0;
}

/* out = in - half' half in `rows` rows from i on, which share what they load of `half`. Loops over
 * the constants `rows` and `k` unroll. Products commute and sums keep their order: what was
 * symmetric stays so to the bit. */
INLINE void downdate_rows(int64_t n, int64_t k, int64_t rows, const double *restrict half, int64_t i,
                          const double *in, double *out)
{
    double own[rows * k]; /* in registers: `out` might be `half`, for all that the compiler knows */
    for (int64_t r = 0; r < rows; r++)
        for (int64_t f = 0; f < k; f++)
            own[r * k + f] = half[f * n + i + r];
#pragma GCC ivdep /* `out` is `in` or far from it */
    for (int64_t j = 0; j < n; j++)
        for (int64_t r = 0; r < rows; r++) {
            double left = in[(i + r) * n + j];
            for (int64_t f = 0; f < k; f++)
                left -= own[r * k + f] * half[f * n + j];
            out[(i + r) * n + j] = left;
        }
}

INLINE void downdate(int64_t n, int64_t k, const double *half, const double *in, double *out)
{
    int64_t i = 0;
    for (; i + 1 < n; i += 2)
        downdate_rows(n, k, 2, half, i, in, out);
    if (i < n)
        downdate_rows(n, k, 1, half, i, in, out);
}

/* Posterior mean [n] and covariance [n][n] after y, of which `residual` [k] = y - H m is left.
 * `covariance_out` may be `covariance`. Scratch: half [k][n]. */
void conjugate_condition(int64_t n, int64_t k, const double *mean, const double *covariance,
                         const double *gain, const double *inverse, const double *residual,
                         double *half, double *mean_out, double *covariance_out)
{
    double white[k];
    for (int64_t i = 0; i < k; i++) {
        white[i] = 0;
        for (int64_t j = 0; j < n; j++)
            half[i * n + j] = 0;
        for (int64_t f = 0; f <= i; f++) {
            double c = inverse[i * k + f];
            white[i] += c * residual[f];
            for (int64_t j = 0; j < n; j++)
                half[i * n + j] += c * gain[f * n + j];
        }
    }
    for (int64_t j = 0; j < n; j++) {
        double sum = mean[j];
        for (int64_t f = 0; f < k; f++)
            sum += half[f * n + j] * white[f];
        mean_out[j] = sum;
    }
    switch (k) {
#define CASE(K)                                             \
    case K:                                                 \
        downdate(n, K, half, covariance, covariance_out);   \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10)
    default:
        downdate(n, k, half, covariance, covariance_out);
    }
}
