/* commands.h - what stentorctl can do; one row each in main.c's table.
 *
 * A program of its own, which shares nothing with the dispatcher but proto/: a
 * command line comes in (args.h), calls of the API go out (client.h), and what
 * they answer is printed (print.h).
 */
#ifndef STENTOR_CTL_COMMANDS_H
#define STENTOR_CTL_COMMANDS_H

#include "dispatcher/ctl/args.h"

/* All return an exit code (client.h). */
int ctl_nodes(const struct ctl_args *args);
int ctl_channel(const struct ctl_args *args);

extern const struct ctl_option ctl_drain_options[];
int ctl_drain(const struct ctl_args *args);
extern const struct ctl_option ctl_history_options[];
int ctl_history(const struct ctl_args *args);

extern const struct ctl_option ctl_publish_options[];
int ctl_publish(const struct ctl_args *args);

extern const struct ctl_option ctl_revoke_options[];
int ctl_revoke(const struct ctl_args *args);

extern const struct ctl_option ctl_tail_options[];
int ctl_tail(const struct ctl_args *args);

#endif
