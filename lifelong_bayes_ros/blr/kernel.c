/* The Bayesian learning rule in one pass over memory: update, then draw the next sample.

   Per parameter 20 bytes are read and 16 written; the gradient is read once more beforehand, to see
   that it is finite. Compiled by kernel.py; the rule is documented in optimizer.py. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 256 /* parameters whose buffers stay in the first-level cache */
#define HALF (BLOCK / 2)

typedef struct {
    float *mean, *h, *momentum, *sample;
    const float *gradient;         /* null: no gradient, only a new sample */
    const float *curvature;        /* null unless it was observed */
    const float *prior_mean;       /* null: the group's scalar */
    const float *prior_precision;  /* null: the group's scalar */
    int64_t size, offset;          /* offset: first index of the random stream */
} Tensor;

typedef struct {
    float lr, decay, debias, rho, ess, delta, prior_mean, clip;
    int32_t curvature, root, positive, rademacher;
} Rule;

typedef struct {
    const Tensor *tensors;
    int64_t count;
    Rule rule;
} Group;

enum { PRICE, SQUARED, OBSERVED };

/* The two keys of a draw, by splitmix64 (Steele, Lea & Flood 2014). */
static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Counter-based: value i of a draw does not depend on how the work is cut. */
static inline uint32_t bits(uint32_t i, uint32_t key, uint32_t key2) {
    uint32_t x = i + key;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = ((x ^ (x >> 15)) + key2) * 0x846ca68bu;
    return x ^ (x >> 16);
}

/* 1/sqrt(x), relative error below 1e-6, in two steps of Newton's method tuned to their start. What
   compilers make of 1/sqrtf(x) takes twice the instructions. */
static inline float rsqrt(float x) {
    int32_t i;
    float y, half = 0.5f * x;
    memcpy(&i, &x, 4);
    i = 0x5f375c00 - (i >> 1);
    memcpy(&y, &i, 4);
    y *= 1.5009f - half * y * y;
    return y * (1.5000006f - half * y * y);
}

/* -2 ln u for u in (0, 1), relative error below 6e-5. */
static inline float minus_two_ln(float u) {
    int32_t i;
    memcpy(&i, &u, 4);
    int32_t e = (i - 0x3f3504f3) >> 23;
    i -= e << 23;
    float m;
    memcpy(&m, &i, 4);
    float x = m - 1.0f;
    float p = -0.35315798f;
    p = p * x + 0.54188604f;
    p = p * x - 0.67277697f;
    p = p * x + 0.99890160f;
    p = p * x - 1.99993238f;
    return x * p - (float)e * 1.38629436112f;
}

/* Box-Muller: an angle in a half turn and a random sign give standard normals up to 5.7. Radius and
   angle are one point of a two-dimensional lattice, which halves the hashing. In three loops, as the
   processor can look ahead across short chains of instructions only. */
static void gaussian(float *restrict z, uint32_t first, uint32_t key, uint32_t key2) {
    uint32_t word[HALF] __attribute__((aligned(64)));
    float square[HALF] __attribute__((aligned(64)));
    for (int i = 0; i < HALF; i++) word[i] = bits(first + i, key, key2);
    for (int i = 0; i < HALF; i++)
        square[i] = minus_two_ln(((float)(int32_t)(word[i] >> 9) + 0.5f) * 1.1920928955078125e-7f);
    for (int i = 0; i < HALF; i++) {
        uint32_t a = word[i], b = a * 0x915f77f5u, signed_radius;
        float radius = square[i] * rsqrt(square[i]);
        memcpy(&signed_radius, &radius, 4);
        signed_radius |= a << 31;
        memcpy(&radius, &signed_radius, 4);
        float t = (float)(int32_t)b * 7.314590396e-10f, t2 = t * t; /* within +-pi/2 */
        float sine = -1.83636505e-4f, cosine = -1.27121e-3f;        /* minimax, error < 7e-6 */
        sine = sine * t2 + 8.3063251e-3f;
        sine = sine * t2 - 0.166648284f;
        sine = sine * t2 + 0.999996616f;
        cosine = cosine * t2 + 4.148775e-2f;
        cosine = cosine * t2 - 0.49991244f;
        cosine = cosine * t2 + 0.9999933f;
        z[i] = radius * cosine;
        z[HALF + i] = radius * (sine * t);
    }
}

static void rademacher(float *restrict z, uint32_t first, uint32_t key, uint32_t key2) {
    for (int i = 0; i < BLOCK; i++)
        z[i] = (float)((int32_t)((bits(first + i, key, key2) >> 30) & 2) - 1);
}

/* Update, unless only asked to draw, and draw. Inlined once per setting, so that no branch is left
   in the loop. A draw that is repeated after a restart must have the same bits with and without
   the update: kernel.py forbids the compiler to reassociate. */
static inline __attribute__((always_inline)) void run_block(
    float *restrict mean, float *restrict h, float *restrict momentum, float *restrict sample,
    const float *restrict g, const float *restrict f, const float *restrict m0,
    const float *restrict s0, const float *restrict z, Rule r, int n,
    int update, int curvature, int root, int positive, int prior, int clip) {
    float inverse_ess = 1.0f / r.ess, weight = 1.0f / r.debias, spread = 1.0f / sqrtf(r.ess);
    float pull = r.delta * r.prior_mean;
    for (int i = 0; i < n; i++) {
        float d = prior ? s0[i] * inverse_ess : r.delta, m = mean[i], now = h[i];
        if (update) {
            float s = now + d;
            float estimate = curvature == PRICE     ? r.ess * s * (sample[i] - m) * g[i]
                             : curvature == SQUARED ? g[i] * g[i]
                                                    : f[i];
            float gap = r.rho * (estimate - now);
            now = now + (positive ? gap + 0.5f * gap * gap / s : gap);
            h[i] = now;
            float moved = momentum[i] + r.decay * (g[i] - momentum[i]);
            momentum[i] = moved;
            float by = moved * weight + (prior ? d * (m - m0[i]) : d * m - pull);
            float inverse = rsqrt(now + d);
            by *= root ? 1.0f / (sqrtf(now) + d) : inverse * inverse;
            if (clip) {
                by = by < r.clip ? by : r.clip;
                by = by > -r.clip ? by : -r.clip;
            }
            m = m - r.lr * by;
            mean[i] = m;
        }
        sample[i] = m + z[i] * (spread * rsqrt(now + d));
    }
}

/* Whether every gradient is finite, by the exponent: fast arithmetic may not know NaN. */
static int all_finite(const uint32_t *x, int64_t size) {
    uint32_t worst = 0;
    for (int64_t i = 0; i < size; i++) {
        uint32_t e = x[i] & 0x7f800000u;
        worst = e > worst ? e : worst;
    }
    return worst != 0x7f800000u;
}

static void run_tensor(Tensor t, Rule r, uint32_t key, uint32_t key2, int update) {
    float z[BLOCK] __attribute__((aligned(64)));
    for (int64_t at = 0; at < t.size; at += BLOCK) {
        int n = t.size - at < BLOCK ? (int)(t.size - at) : BLOCK;
        float *mean = t.mean + at, *h = t.h + at, *mom = t.momentum + at, *s = t.sample + at;
        const float *g = t.gradient ? t.gradient + at : 0;
        const float *f = t.curvature ? t.curvature + at : 0;
        const float *m0 = t.prior_precision ? t.prior_mean + at : 0;
        const float *s0 = t.prior_precision ? t.prior_precision + at : 0;
        int curvature = f ? OBSERVED : r.curvature;
        (r.rademacher ? rademacher : gaussian)(z, (uint32_t)(t.offset + at), key, key2);
#define RUN(U, C, R, P, W, K) run_block(mean, h, mom, s, g, f, m0, s0, z, r, n, U, C, R, P, W, K)
#define WITH(U, C, R, P) do { if (s0) RUN(U, C, R, P, 1, 1); \
                              else if (r.clip < 1e38f) RUN(U, C, R, P, 0, 1); \
                              else RUN(U, C, R, P, 0, 0); } while (0)
#define RULES(C) do { if (r.root) { if (r.positive) WITH(1, C, 1, 1); else WITH(1, C, 1, 0); } \
                      else if (r.positive) WITH(1, C, 0, 1); else WITH(1, C, 0, 0); } while (0)
        if (!update || !g) WITH(0, OBSERVED, 0, 0);
        else if (curvature == PRICE) RULES(PRICE);
        else if (curvature == SQUARED) RULES(SQUARED);
        else RULES(OBSERVED);
    }
}

/* Update where there is a gradient, if asked to, and draw sample number `draw` of the stream
   `seed`. Returns 0 and changes nothing if a gradient is not finite. */
int32_t blr_run(const Group *groups, int64_t count, uint64_t seed, uint64_t draw, int32_t update) {
    for (int64_t j = 0; update && j < count; j++)
        for (int64_t k = 0; k < groups[j].count; k++) {
            const Tensor *t = &groups[j].tensors[k];
            if (t->gradient && !all_finite((const uint32_t *)t->gradient, t->size)) return 0;
            if (t->curvature && !all_finite((const uint32_t *)t->curvature, t->size)) return 0;
        }
    uint64_t keys = mix(seed ^ mix(draw));
    for (int64_t j = 0; j < count; j++)
        for (int64_t k = 0; k < groups[j].count; k++)
            run_tensor(groups[j].tensors[k], groups[j].rule, (uint32_t)keys,
                       (uint32_t)(keys >> 32), update);
    return 1;
}
