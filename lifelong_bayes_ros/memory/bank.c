/* Scores a transition under many heads; bank.py does the same with numpy and says what is computed.
 *
 * The large blocks are float32, with rows filled up with zeros to `stride`, a multiple of LANES;
 * all else is float64. Everything is C-contiguous.
 */
#include <math.h>
#include <stdint.h>

#define LANES 8
#define LINE 16 /* numbers in a line of the cache */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));

/* phi' block phi, of a block with nothing below its diagonal. */
static float quadratic(int rows, int stride, const float *block, const float *phi)
{
    vec sums[4] = {{0}};
    for (int r = 0; r < rows; r++) {
        const float *row = block + (int64_t)r * stride;
        /* The next block: in a triangle the processor does not see where to read on. */
        for (int c = r - r % LINE; c < stride + LINE; c += LINE)
            __builtin_prefetch(row + (int64_t)rows * stride + c);
        vec sum = {0};
        for (int c = r - r % LANES; c < stride; c += LANES)
            sum += *(const vec *)(row + c) * *(const vec *)(phi + c);
        sums[r & 3] += phi[r] * sum;
    }
    vec all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float total = 0;
    for (int i = 0; i < LANES; i++)
        total += all[i];
    return total;
}

/* Blocks are P_ij [heads][pairs i <= j][features][stride], folded onto their upper triangles; cross
 * C_i [heads][outputs][tails][stride], tail D [heads][tails][tails], weights [heads][outputs]
 * [features], structured [heads][tails]; tangent T [outputs][tails], noise [heads][outputs]. `phi`
 * [stride] is given in both types. Out: residual [heads][outputs], squared distance and log
 * determinant [heads]. Returns 0, or 1 if a predictive is not positive definite. */
int32_t bank_score(int32_t heads, int32_t outputs, int32_t features, int32_t stride, int32_t tails,
                   const float *blocks, const float *cross, const double *tail,
                   const double *weights, const double *structured, const float *phi,
                   const double *wide, const double *tangent, const double *target,
                   const double *noise, double *residual, double *square, double *log_det)
{
    int o = outputs, t = tails;
    double meet[o][t], turned[o][t], s[o][o], white[o];
    for (int h = 0; h < heads; h++) {
        for (int i = 0; i < o; i++) {
            double left = target[i];
            const double *w = weights + ((int64_t)h * o + i) * features;
            for (int f = 0; f < features; f++)
                left -= w[f] * wide[f];
            for (int a = 0; a < t; a++) {
                const float *row = cross + (((int64_t)h * o + i) * t + a) * stride;
                vec sum = {0};
                for (int c = 0; c < stride; c += LANES)
                    sum += *(const vec *)(row + c) * *(const vec *)(phi + c);
                meet[i][a] = 0;
                for (int c = 0; c < LANES; c++)
                    meet[i][a] += sum[c];
                left -= structured[h * t + a] * tangent[i * t + a];
                turned[i][a] = 0;
                for (int b = 0; b < t; b++)
                    turned[i][a] += tangent[i * t + b] * tail[((int64_t)h * t + b) * t + a];
            }
            residual[h * o + i] = left;
        }
        for (int i = 0; i < o; i++)
            for (int j = i; j < o; j++) {
                double sum = quadratic(features, stride, blocks, phi) + (i == j ? noise[h * o + i] : 0);
                blocks += (int64_t)features * stride;
                for (int a = 0; a < t; a++)
                    sum += meet[i][a] * tangent[j * t + a] + meet[j][a] * tangent[i * t + a]
                        + turned[i][a] * tangent[j * t + a];
                s[j][i] = sum;
            }
        square[h] = log_det[h] = 0;
        for (int i = 0; i < o; i++) { /* s becomes its Cholesky factor */
            double left = residual[h * o + i];
            for (int j = 0; j <= i; j++) {
                double sum = s[i][j];
                for (int m = 0; m < j; m++)
                    sum -= s[i][m] * s[j][m];
                if (i == j && !(sum > 0))
                    return 1;
                s[i][j] = i == j ? sqrt(sum) : sum / s[j][j];
                if (j < i)
                    left -= s[i][j] * white[j];
            }
            white[i] = left / s[i][i];
            square[h] += white[i] * white[i];
            log_det[h] += 2 * log(s[i][i]);
        }
    }
    return 0;
}
