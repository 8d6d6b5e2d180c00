/* The Bayesian learning rule in one pass over memory: update, then draw the next sample.

   Per parameter 20 bytes are read and 16 written: a block of BLOCK parameters is updated, and
   sampled again while it is in the first-level cache. Compiled by kernel.py; the rule is documented in optimizer.py. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 256
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

/* ln u for u in (0, 1), relative error below 1e-4: enough for a radius. */
static inline float ln(float u) {
    int32_t i;
    memcpy(&i, &u, 4);
    int32_t e = (i - 0x3f3504f3) >> 23;
    i -= e << 23;
    float m;
    memcpy(&m, &i, 4);
    float x = m - 1.0f;
    float p = 0.1765775f;
    p = p * x - 0.27094546f;
    p = p * x + 0.33638920f;
    p = p * x - 0.49945068f;
    p = p * x + 0.99996620f;
    return x * p + (float)e * 0.69314718056f;
}

/* Box-Muller with the angle folded into a quarter turn: standard normals up to 5.9. Radius and
   angle are one point of a two-dimensional lattice, which halves the hashing. */
static void gaussian(float *restrict z, uint32_t first, uint32_t key, uint32_t key2) {
    for (int i = 0; i < HALF; i++) {
        uint32_t a = bits(first + i, key, key2), b = a * 0x915f77f5u;
        float u = ((float)(int32_t)(a >> 8) + 0.5f) * 5.9604644775390625e-8f;
        float radius = sqrtf(-2.0f * ln(u));
        float t = (float)(int32_t)b * 3.657295198e-10f, t2 = t * t;
        float sine = t * (1 + t2 * (-0.1666327f + t2 * 8.1678e-3f));
        float cosine = 1 + t2 * (-0.4999890f + t2 * (4.165661e-2f - t2 * 1.36056e-3f));
        float sign = (float)((int32_t)(a & 2) - 1) ;
        float c = radius * cosine * sign, s = radius * sine;
        z[i] = (a & 1) ? s : c;
        z[HALF + i] = (a & 1) ? c : s;
    }
}

static void rademacher(float *restrict z, uint32_t first, uint32_t key, uint32_t key2) {
    for (int i = 0; i < BLOCK; i++)
        z[i] = (float)((int32_t)((bits(first + i, key, key2) >> 30) & 2) - 1);
}

/* Inlined once per setting, so that no branch is left in the loop. */
static inline __attribute__((always_inline)) void update_block(
    float *restrict mean, float *restrict h, float *restrict momentum,
    const float *restrict sample, const float *restrict g, const float *restrict f,
    const float *restrict m0, const float *restrict s0, Rule r, int n,
    int curvature, int root, int positive, int prior) {
    float inverse_ess = 1.0f / r.ess, step = r.lr, weight = 1.0f / r.debias;
    for (int i = 0; i < n; i++) {
        float d = prior ? s0[i] * inverse_ess : r.delta, m = mean[i];
        float centre = prior ? m0[i] : r.prior_mean, s = h[i] + d;
        float estimate = curvature == PRICE     ? r.ess * s * (sample[i] - m) * g[i]
                         : curvature == SQUARED ? g[i] * g[i]
                                                : f[i];
        float gap = r.rho * (estimate - h[i]);
        float now = h[i] + gap + (positive ? 0.5f * gap * gap / s : 0.0f);
        float moved = momentum[i] + r.decay * (g[i] - momentum[i]);
        float scale = 1.0f / (root ? sqrtf(now) + d : now + d);
        float by = (moved * weight + d * (m - centre)) * scale;
        by = by > r.clip ? r.clip : by < -r.clip ? -r.clip : by;
        h[i] = now;
        momentum[i] = moved;
        mean[i] = m - step * by;
    }
}

/* One function for every draw, so that a draw repeated after a restart has the same bits. */
static void sample_block(
    const float *restrict mean, const float *restrict h, float *restrict sample,
    const float *restrict s0, const float *restrict z, Rule r, int n) {
    float inverse_ess = 1.0f / r.ess;
    for (int i = 0; i < n; i++) {
        float d = s0 ? s0[i] * inverse_ess : r.delta;
        sample[i] = mean[i] + z[i] * (1.0f / sqrtf(r.ess * (h[i] + d)));
    }
}

/* Update where there is a gradient, and draw sample number `draw` of the stream `seed`. */
void blr_run(const Tensor *tensors, int64_t count, const Rule *rule, uint64_t seed, uint64_t draw,
             int32_t update) {
    Rule r = *rule;
    uint64_t keys = mix(seed ^ mix(draw));
    uint32_t key = (uint32_t)keys, key2 = (uint32_t)(keys >> 32);
    float z[BLOCK] __attribute__((aligned(64)));
    for (int64_t k = 0; k < count; k++) {
        Tensor t = tensors[k];
        for (int64_t at = 0; at < t.size; at += BLOCK) {
            int n = t.size - at < BLOCK ? (int)(t.size - at) : BLOCK;
            float *mean = t.mean + at, *h = t.h + at, *mom = t.momentum + at, *s = t.sample + at;
            const float *m0 = t.prior_precision ? t.prior_mean + at : 0;
            const float *s0 = t.prior_precision ? t.prior_precision + at : 0;
            if (update && t.gradient) {
                const float *g = t.gradient + at, *f = t.curvature ? t.curvature + at : 0;
                int curvature = f ? OBSERVED : r.curvature;
#define RUN(C, R, P, W) update_block(mean, h, mom, s, g, f, m0, s0, r, n, C, R, P, W)
#define WITH(C, R, P) do { if (s0) RUN(C, R, P, 1); else RUN(C, R, P, 0); } while (0)
#define RULES(C) do { if (r.root) { if (r.positive) WITH(C, 1, 1); else WITH(C, 1, 0); } \
                      else if (r.positive) WITH(C, 0, 1); else WITH(C, 0, 0); } while (0)
                if (curvature == PRICE) RULES(PRICE);
                else if (curvature == SQUARED) RULES(SQUARED);
                else RULES(OBSERVED);
            }
            (r.rademacher ? rademacher : gaussian)(z, (uint32_t)(t.offset + at), key, key2);
            sample_block(mean, h, s, s0, z, r, n);
        }
    }
}

/* Whether every gradient is finite, by the exponent: fast arithmetic may not know NaN. */
int32_t blr_finite(const Tensor *tensors, int64_t count) {
    for (int64_t k = 0; k < count; k++) {
        const uint32_t *g = (const uint32_t *)tensors[k].gradient;
        const uint32_t *f = (const uint32_t *)tensors[k].curvature;
        uint32_t worst = 0;
        for (int64_t i = 0; g && i < tensors[k].size; i++) {
            uint32_t e = g[i] & 0x7f800000u;
            worst = e > worst ? e : worst;
        }
        for (int64_t i = 0; f && i < tensors[k].size; i++) {
            uint32_t e = f[i] & 0x7f800000u;
            worst = e > worst ? e : worst;
        }
        if (worst == 0x7f800000u) return 0;
    }
    return 1;
}
