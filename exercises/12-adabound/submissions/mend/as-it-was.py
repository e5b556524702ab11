# named: Look at a group that is added later
class Mended(AdaBoundBase):
    def __init__(self, params, **options):
        super().__init__(params, **options)
        self.base_lrs = [group["base_lr"] or group["lr"] for group in self.param_groups]

    def base_lr_of(self, group):
        number = [one is group for one in self.param_groups].index(True)
        return self.base_lrs[number]
