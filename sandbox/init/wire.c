#include "wire.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "ops.h"

enum { HEADER = 12 }; /* "SBX1", total length, number of steps */

/* What is left to read, and where the next piece of the result goes. Once `broken`, reads yield zeros. */
struct reader {
    const uint8_t *next, *end;
    uint8_t *room, *room_end;
    bool broken;
};

static const uint8_t *take(struct reader *in, size_t length)
{
    static const uint8_t nothing[8];

    if (in->broken || (size_t)(in->end - in->next) < length) {
        in->broken = true;
        return nothing;
    }
    in->next += length;
    return in->next - length;
}

static uint64_t take_number(struct reader *in, unsigned width)
{
    const uint8_t *bytes = take(in, width);
    uint64_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

/* The NUL is on the wire too, and there is no other: C may point straight at it. */
static const char *take_text(struct reader *in)
{
    size_t length = take_number(in, 4);
    const uint8_t *text = take(in, length + 1);

    if (in->broken || memchr(text, 0, length + 1) != text + length) {
        in->broken = true;
        return "";
    }
    return (const char *)text;
}

static void *lay_out(struct reader *in, size_t size)
{
    if ((size_t)(in->room_end - in->room) < size) {
        in->broken = true;
        return NULL;
    }
    in->room += size;
    return in->room - size;
}

static char **take_list(struct reader *in)
{
    uint64_t count = take_number(in, 4);

    if (count > (size_t)(in->end - in->next)) /* each text has its NUL at least: keeps the room honest */
        in->broken = true;
    char **list = in->broken ? NULL : lay_out(in, (count + 1) * sizeof *list);

    if (list == NULL)
        return NULL;
    for (uint64_t i = 0; i < count; i++)
        list[i] = (char *)take_text(in);
    list[count] = NULL;
    return list;
}

static const struct bytes *take_bytes(struct reader *in)
{
    size_t length = take_number(in, 4);
    const uint8_t *data = take(in, length);
    struct bytes *bytes = in->broken ? NULL : lay_out(in, sizeof *bytes);

    if (bytes != NULL)
        *bytes = (struct bytes){data, length};
    return bytes;
}

static union arg take_arg(struct reader *in, char type)
{
    union arg arg = {0};

    if (take_number(in, 1) != (uint8_t)type)
        in->broken = true;
    else if (type == 'i')
        arg.number = (int64_t)take_number(in, 8);
    else if (type == 's')
        arg.text = take_text(in);
    else if (type == 'b')
        arg.bytes = take_bytes(in);
    else
        arg.list = take_list(in);
    return arg;
}

/* Does an op take so many arguments? "i*" takes any number. */
static bool fits(const struct op *op, size_t count)
{
    return strchr(op->signature, '*') != NULL || strlen(op->signature) == count;
}

static void take_step(struct reader *in, struct step *step)
{
    uint64_t where = take_number(in, 1);

    step->count = (uint8_t)take_number(in, 1);
    step->number = (uint16_t)take_number(in, 2);
    step->op = op_named(take_text(in));
    if (in->broken || step->op == NULL || step->op->where != where || !fits(step->op, step->count)) {
        in->broken = true;
        return;
    }
    union arg *args = lay_out(in, step->count * sizeof *args);
    bool any = strchr(step->op->signature, '*') != NULL;

    for (unsigned i = 0; !in->broken && i < step->count; i++)
        args[i] = take_arg(in, step->op->signature[any ? 0 : i]);
    step->args = args;
}

int plan_parse(const uint8_t *bytes, size_t length, void *room, struct plan *plan)
{
    struct reader in = {bytes, bytes + length, room, (uint8_t *)room + PLAN_ROOM(length), false};

    if (length < HEADER || memcmp(take(&in, 4), "SBX1", 4) != 0 || take_number(&in, 4) != length)
        return EINVAL;
    uint64_t count = take_number(&in, 4);
    struct step *steps = count > length ? NULL : lay_out(&in, count * sizeof *steps);

    if (steps == NULL)
        return EINVAL;
    for (uint64_t i = 0; !in.broken && i < count; i++)
        take_step(&in, &steps[i]);
    if (in.broken || in.next != in.end)
        return EINVAL;
    *plan = (struct plan){steps, (uint32_t)count};
    return 0;
}
