/* Features and structured columns of the model at one step; model.py does the same with numpy and
 * says what is computed. Everything is float64 and C-contiguous.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    int32_t values, angles, actions, hidden, outputs, delays;
    const int64_t *value_at, *angle_at; /* channels that enter as they are, and as angles */
    const double *mean, *scale;         /* [inputs]: input = (encoded - mean) / scale */
    const double *w1, *b1, *w2, *b2;    /* [inputs][hidden], [hidden], [hidden][hidden], [hidden] */
    const double *whiten;               /* [features][features] */
    const double *from_slope;           /* [features][outputs] */
    const double *half_range;           /* [actions] */
} model;

/* out += in' rows, for rows [n][m] */
static inline void add(int n, int m, const double *in, const double *rows, double *restrict out)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++)
            out[j] += in[i] * rows[(int64_t)i * m + j];
}

/* phi [features], and columns T [outputs][2 actions + delays] for u o g, b and c_k; `past` is
 * [delays][actions] */
void parts(const model *m, const double *x, const double *u, const double *past, double *phi,
           double *tangent)
{
    int h = m->hidden, n = m->values, a = m->actions, states = n + 2 * m->angles;
    int inputs = states + a, features = h + inputs + 1, o = m->outputs, width = 2 * a + m->delays;
    double raw[features], open[h], hidden[h], *in = raw + h, jacobian[o];
    for (int i = 0; i < n; i++)
        in[i] = x[m->value_at[i]];
    for (int i = 0; i < m->angles; i++) {
        in[n + i] = cos(x[m->angle_at[i]]);
        in[n + m->angles + i] = sin(x[m->angle_at[i]]);
    }
    memcpy(in + states, u, sizeof(double) * a);
    for (int i = 0; i < inputs; i++)
        in[i] = (in[i] - m->mean[i]) / m->scale[i];
    in[inputs] = 1;
    memcpy(hidden, m->b1, sizeof(hidden));
    add(inputs, h, in, m->w1, hidden);
    for (int j = 0; j < h; j++) {
        open[j] = hidden[j] > 0;
        hidden[j] = open[j] * hidden[j];
    }
    memcpy(raw, m->b2, sizeof(hidden));
    add(h, h, hidden, m->w2, raw);
    for (int j = 0; j < h; j++)
        raw[j] = tanh(raw[j]);
    memset(phi, 0, sizeof(raw));
    add(features, features, raw, m->whiten, phi);

    memset(tangent, 0, sizeof(double) * o * width);
    for (int d = 0; d < a; d++) { /* derivatives along each command */
        const double *first = m->w1 + (int64_t)(states + d) * h;
        double along[h], unit = 1 / m->scale[states + d];
        for (int j = 0; j < h; j++)
            hidden[j] = unit * first[j] * open[j];
        memset(along, 0, sizeof(along));
        add(h, h, hidden, m->w2, along);
        for (int j = 0; j < h; j++)
            along[j] *= 1 - raw[j] * raw[j];
        memset(jacobian, 0, sizeof(jacobian));
        add(h, o, along, m->from_slope, jacobian);
        add(1, o, &unit, m->from_slope + (int64_t)(h + states + d) * o, jacobian);
        for (int i = 0; i < o; i++) {
            double *row = tangent + i * width;
            row[d] = jacobian[i] * u[d];
            row[a + d] = jacobian[i] * m->half_range[d];
            for (int k = 0; k < m->delays; k++)
                row[2 * a + k] += jacobian[i] * (past[k * a + d] - u[d]);
        }
    }
}
